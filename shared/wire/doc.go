// Package wire is the one place that knows how bytes are laid out between client, director and worker.
//
// # Frames
//
// Every stream of every connswap protocol carries frames, one after the other:
//
//	length  varint (RFC 9000 §16)  bytes of type and body together
//	type    varint                 see Type
//	body    length - len(type)     a protobuf message, or a flat chunk
//
// A receiver checks length against its limit before it allocates anything. A type that it does not know
// ends the stream in an error: new types need a new protocol version.
//
// # Chunks
//
// A chunk is laid out flat, because there are many of them. Most are one token of plain content:
//
//	session   varint   on links only: the director's number of the session
//	epoch     varint   the attempt that made it
//	sequence  varint   1, 2, 3 … within its stream
//	text      bytes    up to MaxChunk
//
// All others have another type, and say more before their text:
//
//	choice, channel, tokens   varints   see Rich
//	ids       varint   how many token ids follow, varints
//	length    varint   of text; what follows that is data
//
// # Protocols
//
// The ALPN name carries protocol and version, so one UDP port can serve several and an old peer gets a
// clear refusal.
//
//	connswap/1       client → director, USER port
//	    first stream:   ClientHello → / ← Welcome; then silent
//	    other streams:  Generate → / ← Assigned, tokens, Waiting, Swapped …, then Done or Error
//	    the number of a stream is its QUIC stream id divided by four
//	connswap-link/1  director → worker, USER port
//	    control stream: LinkHello → / ← LinkWelcome; Attach, Credit, Cancel, Rhythm, DrainMark → / ← Refused, WorkerStatus
//	        planned swaps:  Allow, Revoke, Feed, Pivot, Capture, Discard, Fetch, Hold → / ← Prepared, Captured, Held
//	    datagrams:      ← Progress, a frame in each
//	    token streams:  ← Begin, tokens, End or Fail, of many sessions interleaved; the sessions of one
//	        client's connection stay on one stream, and what
//	        they make in one step lies side by side
//	connswap-mgmt/1  worker → director, and anyone → anyone for health, MGMT port
//	    Register → / ← Registered; Heartbeat → / ← HeartbeatAck …
//	    HealthRequest → / ← HealthReply
//	    Pull → / ← Snapshot, Chunk …; PullDone →      whoever needs a state → whoever has it
package wire

// ALPN names. Their number is that of the framing, which all versions share; the hellos negotiate the rest.
const (
	ALPNClient = "connswap/1"
	ALPNLink   = "connswap-link/1"
	ALPNMgmt   = "connswap-mgmt/1"
)

// Limits on what a peer may send, in bytes.
const (
	MaxChunk     = 4 << 10  // text of one chunk
	MaxChunkData = 8 << 10  // data of one chunk
	MaxControl   = 64 << 10 // a control message, unless a limit below says otherwise
	MaxPrompt    = 16 << 20 // an upper bound for configuration; directors set a lower one
	MaxPrefix    = 64 << 20 // the delivered prefix in an Attach; directors set a lower one
	MaxState     = 64 << 20 // the state of an engine
	MaxAttach    = MaxPrompt + MaxPrefix + MaxControl
)

// Other limits of a chunk.
const (
	MaxChoice      = 127 // the last one
	MaxChunkTokens = 512
)

package fakedirector

import (
	"testing"

	"go.uber.org/zap"

	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/quicnet"
	"github.com/connswap/connswap/shared/session"
	"github.com/connswap/connswap/shared/transfer"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

// MgmtAddr is where the MGMT port of the host "director" is.
const MgmtAddr = "director:61001"

// Planner is what a director moves sessions with: an instance that gives migration tokens to who holds what they allow.
type Planner struct {
	*token.Issuer

	Instance string
	links    map[string]*Link // the newest to each worker, by its label
	tokens   *token.Holder    // what the director itself grants
	grants   *token.Grants
}

// NewPlanner returns one without links. Call it inside a synctest bubble.
func NewPlanner(instance string) *Planner {
	p := &Planner{
		Issuer: token.NewIssuer(token.Config{Director: instance, Rate: 1 << 20}), Instance: instance,
		links: make(map[string]*Link), tokens: token.NewHolder(),
	}
	p.grants = p.tokens.Join(instance)
	return p
}

// Hello is the planner's LinkHello.
func (p *Planner) Hello() *wirepb.LinkHello {
	hello := Hello()
	hello.DirectorInstance = p.Instance
	return hello
}

// Open opens a link and waits for the welcome.
func (p *Planner) Open(t *testing.T, w *World, from quicnet.Network, addr string) *Link {
	t.Helper()
	l := w.Dial(t, from, addr, p.Hello())
	p.links[Next[*wirepb.LinkWelcome](t, l).GetWorker()] = l
	return l
}

// Give makes a token for what is claimed, and gives it to a worker, or else the director, who grants that.
func (p *Planner) Give(t *testing.T, holder string, claims token.Claims) *wirepb.Token {
	t.Helper()
	token, err := p.Issue(claims)
	if err != nil {
		t.Fatalf("a token for %+v: %v", claims, err)
	}
	if l := p.links[holder]; l != nil {
		l.Send(t, &wirepb.Allow{Token: token})
	} else if err := p.grants.Allow(token); err != nil {
		t.Fatal(err)
	}
	return token
}

// Standby makes an Attach one of a standby on target, from the epoch before.
func (p *Planner) Standby(t *testing.T, m *wirepb.Attach, target string) *wirepb.Attach {
	t.Helper()
	m.Standby, m.Credit = true, 0
	m.Secret = p.Give(t, target, token.Claims{
		Purpose: wirepb.Purpose_PURPOSE_MIGRATION, Session: m.GetSession(), ConnectionID: m.GetConnectionId(),
		StreamID: m.GetStreamId(), Target: target, FromEpoch: m.GetEpoch() - 1, ToEpoch: m.GetEpoch(),
	}).GetSecret()
	return m
}

// Fetch tells target, in an epoch, to get what source captured, or keeps, after a token. addr is where source is.
func (p *Planner) Fetch(t *testing.T, session, epoch, sequence uint64, source, addr, target string) *wirepb.Fetch {
	t.Helper()
	allowed := p.Give(t, source, token.Claims{
		Purpose: wirepb.Purpose_PURPOSE_STATE_TRANSFER, Session: session, ConnectionID: "conn-1", StreamID: session,
		Source: source, Target: target, FromEpoch: epoch - 1, ToEpoch: epoch,
	})
	return &wirepb.Fetch{
		Session: session, Epoch: epoch, Addr: addr, Token: allowed, Sequence: sequence, TimeoutMs: 60_000,
	}
}

// Feed brings a standby tokens from the one with sequence first on.
func Feed(session, epoch, first uint64, tokens ...[]byte) *wirepb.Feed {
	m := &wirepb.Feed{Session: session, Epoch: epoch, FirstSequence: first}
	for _, token := range tokens {
		m.Text = append(m.Text, token...)
		m.Lengths = append(m.Lengths, uint32(len(token)))
	}
	return m
}

// Pivot makes a standby that has been brought the first fed of all tokens the owner after the last of them.
func Pivot(id, epoch uint64, fed int, tokens [][]byte) *wirepb.Pivot {
	digest := session.DigestOf(tokens...)
	return &wirepb.Pivot{
		Rest: Feed(id, epoch, uint64(fed)+1, tokens[fed:]...), Cut: uint64(len(tokens)), Digest: digest[:], Credit: 1 << 40,
	}
}

// Puller gets states as a node of a role with a name does. It has to be closed.
func (w *World) Puller(role identity.Role, name string, from quicnet.Network) *transfer.Puller {
	return transfer.NewPuller(transfer.PullerConfig{
		Network: from, TLS: w.TLS[role], Name: name, MaxState: wire.MaxState, Log: zap.NewNop(),
	})
}

// Offer makes the director give a session's snapshot to whoever shows the secret of a token of p for it.
func (m *Mgmt) Offer(t testing.TB, p *Planner, id uint64, snapshot *transfer.Snapshot) {
	t.Helper()
	store := transfer.NewStore(1 << 30)
	if err := store.Put(transfer.Key{Director: p.Instance, Session: id, Checkpoint: true}, snapshot, 0); err != nil {
		t.Fatal(err)
	}
	server := &transfer.Server{
		Store: store, Log: zap.NewNop(),
		Show: func(secret []byte, puller string) (*wirepb.Token, error) {
			return p.tokens.Show(secret, token.Want{
				Purpose: wirepb.Purpose_PURPOSE_STATE_TRANSFER, Source: "director-1", Target: puller,
			})
		},
	}
	m.Give(server.Serve)
}

// AtDirector tells worker-a to get a session's state from the director.
func (p *Planner) AtDirector(t *testing.T, session, epoch, sequence uint64) *wirepb.Fetch {
	t.Helper()
	m := p.Fetch(t, session, epoch, sequence, "director-1", MgmtAddr, "worker-a")
	m.AtDirector = true
	return m
}

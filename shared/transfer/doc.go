// Package transfer moves the state of an inference engine from node to node.
//
// The caller copies the state out of its engine; [Compress] makes a [Snapshot] of the copy while generation goes
// on. A [Store] keeps snapshots within a bound. A [Server] gives them to whoever has a migration token, on the
// MGMT port; a [Puller] fetches one and goes on with the next chunk where a connection was lost.
//
// A snapshot is cut into chunks of 256 KiB, each compressed by itself (zstd) and sealed (AES-256-GCM) with a
// key of this one transfer, and has a SHA-256 over the whole state. TLS protects the connection; the seal binds
// the bytes to the migration: what was made for another session, stream, epoch or worker does not open.
package transfer

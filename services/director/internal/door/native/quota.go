package native

import "sync/atomic"

// quota bounds how many streams are served at once, from their first byte on: a stream counts before its request is
// read, so that what it costs is bounded from its beginning. It is safe for concurrent use.
type quota struct {
	limit int64
	taken atomic.Int64
}

// acquire counts a stream, unless there are as many as there may be. Give it back with release.
func (q *quota) acquire() bool {
	if q.taken.Add(1) > q.limit {
		q.taken.Add(-1)
		return false
	}
	return true
}

func (q *quota) release() { q.taken.Add(-1) }

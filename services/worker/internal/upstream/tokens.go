package upstream

import "slices"

// tokens counts those of one choice of an answer that is made again: the first ones are in the stream already. What chunks they come
// in says nothing about the bytes, since a server puts out whole characters, and may keep some back: so tokens and bytes are counted for
// themselves, and a new piece brings all tokens since.
type tokens struct {
	owed   int      // that the stream has, and that were not made again yet
	want   []uint32 // their ids
	known  bool     // the stream has the id of each
	begun  bool     // the stream has tokens
	lost   bool     // the ids made again are not those of the stream, so that what follows cannot be told as theirs
	differ bool     // the stream has other ids there
	n      int      // new ones that no piece has brought yet
	ids    []uint32 // theirs
}

// expect takes tokens of the stream.
func (t *tokens) expect(ids []uint32, n int) {
	if n == 0 && len(ids) == 0 {
		return
	}
	if !t.begun {
		t.begun, t.known = true, true
	}
	t.owed += n
	t.known = t.known && len(ids) == n
	t.want = append(t.want, ids...)
}

// again counts the new ones again, of which the stream may have some now.
func (t *tokens) again() {
	n, ids := t.n, t.ids
	t.n, t.ids = 0, nil
	t.take(ids, n)
}

// take takes tokens of the answer.
func (t *tokens) take(ids []uint32, n int) {
	if n == 0 {
		return
	}
	told := len(ids) == n
	if drop := min(t.owed, n); drop > 0 {
		t.owed -= drop
		if n -= drop; !t.known || !told || !slices.Equal(ids[:drop], t.want[:drop]) {
			t.lost = true
			t.differ = t.differ || t.known && told
		} else {
			t.want, ids = t.want[drop:], ids[drop:]
		}
	}
	if t.n += n; t.lost || !told {
		t.ids = nil
		return
	}
	if t.n == n {
		t.ids = ids // mostly the only ones
		return
	}
	t.ids = append(slices.Clip(t.ids), ids...)
}

// rest returns the new ones for the next piece. The ids are nil where they cannot be told.
func (t *tokens) rest() (ids []uint32, n int) {
	ids, n = t.ids, t.n
	t.ids, t.n = nil, 0
	if len(ids) != n {
		ids = nil
	}
	return ids, n
}

package shares

import "sync/atomic"

// Account is the memory of one stream or connection: it is given back all at once. Its methods may be called by several
// goroutines, Close last.
type Account struct {
	holder *Holder
	bytes  atomic.Int64
}

// Open returns an account with so many bytes in it, or a refusal.
func (h *Holder) Open(bytes int) (*Account, error) {
	if err := h.Take(Bytes, bytes); err != nil {
		return nil, err
	}
	a := &Account{holder: h}
	a.bytes.Add(int64(bytes))
	return a, nil
}

// Grow adds to what a stream that runs holds, and reports whether it may.
func (a *Account) Grow(bytes int) bool {
	if a.holder.Keep(Bytes, bytes) != nil {
		return false
	}
	a.bytes.Add(int64(bytes))
	return true
}

// Close gives everything back.
func (a *Account) Close() { a.holder.Give(Bytes, int(a.bytes.Swap(0))) }

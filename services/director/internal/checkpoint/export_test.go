package checkpoint

// Workers returns of how many workers something is remembered. It is for tests.
func (t *Limiter) Workers() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.at)
}

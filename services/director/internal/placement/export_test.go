package placement

// DeclinedFor is for tests.
const DeclinedFor = declinedFor

// Examined is how many workers routing has looked at so far: the work of placing.
func (p *Placement) Examined() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.router.Examined()
}

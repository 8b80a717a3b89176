package routing

// Model is one of the models of a worker.
type Model struct {
	Name        string
	Fingerprint string   // equal ones continue each other's streams exactly
	Capacity    int      // streams at once; 0 for as many as the worker has
	Stateful    bool     // it has a state that moves with a stream
	Continuity  uint32   // the best class that it can promise: see wirepb.Request
	APIs        []string // that it answers beside those that generate text
	Class       string   // what its worker has measured of it, for people; empty for nothing
	Granted     int      // places that this director has given away for it; placement's part
}

// full reports whether the model has no place left, though its worker may have.
func (m *Model) full() bool { return m.Capacity > 0 && m.Granted >= m.Capacity }

// Model returns which model of a worker a stream would get, or nil if the worker has none that will do.
func (c *Candidate) Model(n Need) *Model {
	for i := range c.Models {
		m := &c.Models[i]
		if (n.Model == "" || n.Model == m.Name) && (n.Portable || !m.foreign(n)) {
			return m
		}
	}
	return nil
}

// foreign reports whether the stream began with another fingerprint.
func (m *Model) foreign(n Need) bool { return n.Fingerprint != "" && n.Fingerprint != m.Fingerprint }

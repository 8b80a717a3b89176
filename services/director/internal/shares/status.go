package shares

// most is how many holders a status names.
const most = 10

// Status shows a Ledger to people and programs, by kind.
type Status map[string]Share

// Share is how a kind is divided.
type Share struct {
	Limit   int64  `json:"limit"`
	Used    int64  `json:"used"`
	Refused uint64 `json:"refused"` // so far
	Most    []Has  `json:"most"`    // who has most of it, the first ten
}

// Has is how much somebody has.
type Has struct {
	Name string `json:"name"` // a certificate's, or an address
	Has  int64  `json:"has"`
}

// Status returns the Ledger as it is now.
func (l *Ledger) Status() Status {
	keys := [kinds]string{Connections: "connections", Requests: "half_open_requests", Streams: "streams", Bytes: "bytes", Sockets: "sockets"}
	all := Status{}
	for kind := range kinds {
		holders := l.Most(kind)
		share := Share{Most: []Has{}}
		l.mu.Lock()
		share.Limit, share.Used, share.Refused = l.limits[kind], l.used[kind], l.refused[kind]
		for _, h := range holders[:min(most, len(holders))] {
			share.Most = append(share.Most, Has{h.name, h.has[kind]})
		}
		l.mu.Unlock()
		all[keys[kind]] = share
	}
	return all
}

package pool

// NewTestLink returns a link that leads nowhere, for tests of what holds links.
func NewTestLink(p *Pool, label string) *Link { return newLink(p, &Worker{Label: label}) }

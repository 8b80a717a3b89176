package identity

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"
)

// Expiry is when a node can no longer prove who it is, or check others.
type Expiry struct {
	NotAfter time.Time `json:"not_after"` // of the node's certificate, or of its authority's if that is earlier
	Names    []string  `json:"names"`     // that the certificate proves
}

// Expiring is a Source that knows when it expires.
type Expiring interface {
	Source
	// Expiry returns what is known of the material of this moment; nil where nothing expires.
	Expiry() *Expiry
}

// ExpiryOf returns when the material of a source expires; nil if that is not known.
func ExpiryOf(src Source) *Expiry {
	if e, ok := src.(Expiring); ok {
		return e.Expiry()
	}
	return nil
}

// Expiry is part of Expiring.
func (d *Dir) Expiry() *Expiry { return d.fresh().Expiry() }

// Expiry is part of Expiring.
func (m *material) Expiry() *Expiry {
	if m.cert == nil {
		return nil
	}
	leaf := m.cert.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(m.cert.Certificate[0]); err != nil {
			return nil
		}
	}
	e := &Expiry{NotAfter: leaf.NotAfter, Names: leaf.DNSNames}
	if !m.rootsExpire.IsZero() && m.rootsExpire.Before(e.NotAfter) {
		e.NotAfter = m.rootsExpire
	}
	return e
}

// Of what is about to expire is warned so long before, each day, and on the last day each hour.
const (
	warnBefore = 14 * 24 * time.Hour
	lastDay    = 24 * time.Hour
)

// Check returns what there is to say of an expiry at a time: a note if it is near, an error if it has passed: nothing can
// connect any more.
func (e *Expiry) Check(now time.Time) (note string, err error) {
	if e == nil {
		return "", nil
	}
	switch left := e.NotAfter.Sub(now); {
	case left <= 0:
		return "", fmt.Errorf("the certificate expired at %s: nothing can connect any more; renew the files in CONNECTION_SWAP_TLS_DIR",
			e.NotAfter.UTC().Format(time.RFC3339))
	case left <= lastDay:
		return fmt.Sprintf("the certificate expires in %v", left.Round(time.Minute)), nil
	case left <= warnBefore:
		return fmt.Sprintf("the certificate expires in %d days", (left+lastDay-1)/lastDay), nil
	}
	return "", nil
}

// WatchExpiry calls warn when it is time to say that the material of a source is about to expire, or has, until ctx ends. It
// looks at whatever material there is then: one that was renewed is not warned of.
func WatchExpiry(ctx context.Context, src Source, warn func(text string, notAfter time.Time)) {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	var warned time.Time
	for {
		if e := ExpiryOf(src); e != nil {
			now := time.Now()
			note, err := e.Check(now)
			every := lastDay
			if e.NotAfter.Sub(now) <= lastDay {
				every = time.Hour
			}
			switch {
			case note == "" && err == nil:
				warned = time.Time{}
			case warned.IsZero() || now.Sub(warned) >= every:
				warned = now
				if err != nil {
					note = err.Error()
				}
				warn(note, e.NotAfter)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

package simtest

import (
	"sync"
	"time"
)

// deadline is a socket's read or write deadline. It wakes who waits at cond.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

// set is called with cond.L locked.
func (d *deadline) set(t time.Time, cond *sync.Cond) {
	d.stop()
	d.at = t
	cond.Broadcast()
	if t.IsZero() || d.passed() {
		return
	}
	d.timer = time.AfterFunc(time.Until(t), func() {
		cond.L.Lock()
		defer cond.L.Unlock()
		cond.Broadcast()
	})
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

package sim

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
)

// certificate makes one more, for names.
func (s *scenario) certificate(t *testing.T, role identity.Role, names ...string) identity.Source {
	t.Helper()
	source, err := s.named(role, names...)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// intruder starts a worker that calls itself as another one does.
func (s *scenario) intruder(source identity.Source, host, label string) *process {
	cfg := s.workers[0].cfg
	cfg.Label = label
	return s.workAs(source, host, cfg)
}

// TestLabelsBelongToCertificates: nobody takes the label of a worker whose certificate names it, be it with a certificate that
// names nobody, or one that names somebody else; who has such a certificate gets the label back; and each that names nobody is
// good for so many labels.
func TestLabelsBelongToCertificates(t *testing.T) {
	few := func(cfg *config.Director) { cfg.MaxLabels = 3 } // two of which the stage has
	stage(t, setup{director: few}, func(t *testing.T, s *scenario) {
		labels := func() (labels []string) {
			for _, w := range s.registered() {
				labels = append(labels, w.Worker)
			}
			slices.Sort(labels)
			return labels
		}
		expect := func(when string, want ...string) {
			t.Helper()
			time.Sleep(30 * time.Second)
			if got := labels(); !slices.Equal(got, want) {
				t.Errorf("%s: registered are %v, want %v", when, got, want)
			}
		}
		squatter := s.intruder(s.sources[identity.Worker], "host-1", "worker-x")
		expect("while nobody minds", "worker-0", "worker-1", "worker-x")
		squatter.host.Restart()
		rightful := s.intruder(s.certificate(t, identity.Worker, "worker-x", "worker-y"), "host-2", "worker-x")
		time.Sleep(10 * time.Second)
		if at := s.addressOf("worker-x"); !strings.HasPrefix(at, hostAddress(s, "host-2")) {
			t.Errorf("worker-x is at %s, not where its certificate is", at)
		}
		squatter.stop()
		s.intruder(s.sources[identity.Worker], "host-3", "worker-x")
		s.intruder(s.certificate(t, identity.Worker, "worker-z"), "host-4", "worker-x")
		s.intruder(s.certificate(t, identity.Worker, "worker-z"), "host-5", "worker-0")
		expect("with intruders", "worker-0", "worker-1", "worker-x")
		if at := s.addressOf("worker-x"); !strings.HasPrefix(at, hostAddress(s, "host-2")) {
			t.Errorf("worker-x is at %s, not where its certificate is", at)
		}
		s.intruder(s.sources[identity.Worker], "host-6", "worker-3")
		expect("one more", "worker-0", "worker-1", "worker-3", "worker-x")
		s.intruder(s.sources[identity.Worker], "host-7", "worker-4")
		expect("one too many", "worker-0", "worker-1", "worker-3", "worker-x")
		rightful.stop()
	})
}

func hostAddress(s *scenario, host string) string {
	addrs, err := s.net.Host("operator").Resolve(s.ctx, host+":1")
	if err != nil || len(addrs) == 0 {
		return "nowhere"
	}
	return strings.TrimSuffix(addrs[0], "1")
}

// addressOf returns where a worker is.
func (s *scenario) addressOf(label string) string {
	for _, w := range s.registered() {
		if w.Worker == label {
			return w.UserAddr
		}
	}
	return "nowhere"
}

// TestClientsNeedACertificate: where a director asks for one, and where it lists names; who is refused is told what to change.
func TestClientsNeedACertificate(t *testing.T) {
	ask := func(names ...string) setup {
		return setup{director: func(cfg *config.Director) { cfg.ClientAuth, cfg.ClientNames = "certificate", names }}
	}
	try := func(t *testing.T, s *scenario, source identity.Source, words string) {
		t.Helper()
		conn, err := connswap.Dial(s.ctx, "director:61000", connswap.Options{Network: s.net.Host("another"), TLS: source})
		if err == nil {
			defer conn.Close() //nolint:errcheck // the test is over
			stream, askErr := conn.Generate(s.ctx, connswap.Request{Prompt: "p", MaxTokens: 3})
			if err = askErr; err == nil {
				err = readStream(stream, nil).err
			}
		}
		switch {
		case words == "" && err != nil:
			t.Errorf("refused: %v", err)
		case words != "" && (!errors.Is(err, &connswap.Error{Code: connswap.CodeUnauthorized}) || !strings.Contains(err.Error(), words)):
			t.Errorf("got %v, want %q", err, words)
		}
	}
	t.Run("any", func(t *testing.T) {
		stage(t, ask(), func(t *testing.T, s *scenario) {
			roots, err := s.sources[identity.Client].Roots()
			if err != nil {
				t.Fatal(err)
			}
			try(t, s, s.sources[identity.Client], "")
			try(t, s, s.certificate(t, identity.Client, "alice"), "")
			try(t, s, identity.Static(nil, roots), "certificate")
			try(t, s, s.sources[identity.Worker], "certificate")
		})
	})
	t.Run("names", func(t *testing.T) {
		source := func(t *testing.T, s *scenario) {
			s.sources[identity.Client] = s.certificate(t, identity.Client, "alice")
		}
		stageAs(t, ask("alice", "carol"), source, func(t *testing.T, s *scenario) {
			try(t, s, s.certificate(t, identity.Client, "alice"), "")
			try(t, s, s.certificate(t, identity.Client, "bob"), `(CONNECTION_SWAP_DIRECTOR_CLIENT_NAMES); "bob" is not one of them`)
			try(t, s, s.certificate(t, identity.Client), "this certificate names nobody")
		})
	})
}

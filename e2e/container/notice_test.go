package container

import (
	"slices"
	"strings"
	"testing"
)

// The proof notices what it is there to notice.
func TestProofNotices(t *testing.T) {
	r := request{prompt: "A test", tokens: 9, seed: 1}
	if err := checkClient(r, faultFreeTranscript(t, r)); err != nil {
		t.Fatalf("nothing is wrong, but: %v", err)
	}
	at := func(events transcript, kind string, n int) int { // index of the nth event of a kind
		return slices.IndexFunc(events, func(e event) bool { n -= map[bool]int{true: 1}[e.Event == kind]; return n == 0 })
	}
	for name, spoil := range map[string]func(e transcript) transcript{
		"a lost token":      func(e transcript) transcript { i := at(e, "token", 3); return slices.Delete(e, i, i+1) },
		"a token twice":     func(e transcript) transcript { i := at(e, "token", 3); return slices.Insert(e, i, e[i]) },
		"another order":     func(e transcript) transcript { i := at(e, "token", 2); e[i], e[i+1] = e[i+1], e[i]; return e },
		"another text":      func(e transcript) transcript { e[at(e, "token", 9)].Text = "?"; return e },
		"a zombie's token":  func(e transcript) transcript { e[at(e, "token", 8)].Epoch = 1; return e },
		"a stranger's":      func(e transcript) transcript { e[at(e, "token", 8)].Worker = "worker-c"; return e },
		"a silent swap":     func(e transcript) transcript { i := at(e, "swapped", 1); return slices.Delete(e, i, i+1) },
		"no kind of swap":   func(e transcript) transcript { e[at(e, "swapped", 1)].Kind = "placement"; return e },
		"a swap not done":   func(e transcript) transcript { e[len(e)-1].Swaps = 0; return e },
		"a gap in the swap": func(e transcript) transcript { e[at(e, "swapped", 1)].Sequence--; return e },
		"a new connection":  func(e transcript) transcript { e[at(e, "token", 6)].ConnectionID = "conn-2"; return e },
		"another handshake": func(e transcript) transcript { e[at(e, "swapped", 1)].ODCID = "ff"; return e },
		"other keys":        func(e transcript) transcript { e[len(e)-1].Exporter = "ff"; return e },
		"a second start":    func(e transcript) transcript { return slices.Insert(e, 4, e[0]) },
		"another stream":    func(e transcript) transcript { e[at(e, "token", 9)].StreamID = 2; return e },
		"another digest":    func(e transcript) transcript { e[len(e)-1].Digest = ""; return e },
		"an early end":      func(e transcript) transcript { return e[:len(e)-1] },
		"no end reached":    func(e transcript) transcript { e[len(e)-1].FinishReason = "stop"; return e },
		"nothing":           func(transcript) transcript { return nil },
	} {
		if err := checkClient(r, spoil(faultFreeTranscript(t, r))); err == nil {
			t.Errorf("%s goes unnoticed", name)
		}
	}
}

// faultFreeTranscript is what a client writes whose worker is swapped once, after five tokens.
func faultFreeTranscript(t *testing.T, r request) transcript {
	t.Helper()
	text, err := faultFree(r)
	if err != nil {
		t.Fatal(err)
	}
	base := event{ConnectionID: "conn-1", StreamID: 1, Worker: "worker-a", Epoch: 1}
	events := transcript{{Event: "connected", ConnectionID: "conn-1", ODCID: "aa", Exporter: "bb"}}
	add := func(kind string, change func(e *event)) {
		e := base
		e.Event = kind
		change(&e)
		events = append(events, e)
	}
	add("assigned", func(*event) {})
	words := strings.SplitN(text, " ", r.tokens) // as good as the tokens: their concatenation counts
	for i := range words[1:] {
		words[i+1] = " " + words[i+1]
	}
	for _, word := range words {
		if base.Sequence == 5 {
			base.Worker, base.Epoch = "worker-b", 2
			add("swapped", func(e *event) {
				e.FromWorker, e.ToWorker, e.Kind, e.Cause, e.ODCID, e.Exporter = "worker-a", "worker-b", "failover", "x", "aa", "bb"
			})
		}
		base.Sequence++
		add("token", func(e *event) { e.Text = word })
	}
	add("done", func(e *event) {
		e.FinishReason, e.Tokens, e.Swaps, e.Digest, e.ODCID, e.Exporter = "length", base.Sequence, 1, digestOf(words), "aa", "bb"
	})
	return events
}

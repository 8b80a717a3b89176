package part

import (
	"math"
	"testing"
	"time"
)

func TestReaderRefusesWhatIsNotTheNextToken(t *testing.T) {
	r := &newMeter(1).readers[0]
	for _, sequence := range []uint64{1, 2} {
		if err := take(r, appendText(nil, 0, sequence)); err != nil {
			t.Fatal(err)
		}
	}
	for _, sequence := range []uint64{0, 2, 4} {
		if take(r, appendText(nil, 0, sequence)) == nil {
			t.Errorf("token %d after 2 was taken", sequence)
		}
	}
	if take(r, "short") == nil || take(r, string(make([]byte, textSize))) == nil {
		t.Error("what is no token was taken")
	}
	if r.end() == nil {
		t.Error("a stream of two tokens counts as whole")
	}
}

func TestMeterCountsWhatItRecords(t *testing.T) {
	m := newMeter(sampled)
	give := func(sequence uint64) {
		for i := range m.readers {
			due := time.Now().Add(-5 * time.Millisecond).UnixNano()
			if err := take(&m.readers[i], appendText(nil, due, sequence)); err != nil {
				t.Fatal(err)
			}
		}
	}
	give(1)
	m.record()
	give(2)
	give(3)
	result := m.stop()
	give(4)
	if result.Tokens != 2*sampled || result.P50 < 4.5 {
		t.Errorf("of two tokens for each of %d readers, 5 ms old: %+v", sampled, result)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for ms := range 1000 {
		h.add(time.Duration(ms+1) * time.Millisecond)
	}
	for q, want := range map[float64]float64{0.5: 500, 0.99: 990} {
		if got := h.quantile(q); math.Abs(got-want) > want/8 {
			t.Errorf("quantile %v of 1 to 1000 ms is %v ms", q, got)
		}
	}
	h.add(-time.Second)
	h.add(24 * time.Hour) // both count, somewhere
}

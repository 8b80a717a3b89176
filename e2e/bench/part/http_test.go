package part

import (
	"testing"

	"github.com/connswap/connswap/e2e/internal/cluster"
)

func TestHTTPStreamsThroughTheProxy(t *testing.T) {
	ports, err := cluster.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	load := Load{Streams: 100, Clients: 100, Rate: 50}
	worker, proxy := cluster.Addr(ports[0]), cluster.Addr(ports[1])
	for _, start := range []func() (running, error){
		func() (running, error) { return httpWorker(ctx, Setup{Load: load, Listen: []string{worker}}) },
		func() (running, error) {
			return httpRelay(ctx, Setup{Load: load, Listen: []string{proxy}, Target: worker})
		},
	} {
		if _, err := start(); err != nil {
			t.Fatal(err)
		}
	}
	client, err := httpClient(ctx, Setup{Load: load, Target: proxy})
	if err != nil {
		t.Fatal(err)
	}
	first, err := client.probe()
	if err != nil || first.P50 <= 0 || first.P99 < first.P50 {
		t.Errorf("first events: %+v, %v", first, err)
	}
	event := len(chunkHead+`"content":""`+chunkTail) - len(`data: `) + textSize + len(`data: `)
	if got := client.meter.eventSize.Load(); got != int64(event) {
		t.Errorf("an event of %d bytes, want %d", got, event)
	}
}

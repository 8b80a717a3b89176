package sim

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/connswap/connswap/services/worker/engine/servertest"
)

// asks is a request for a plain chat.
func asks(user string, fields ...any) map[string]any {
	w := wanted{prompt: "[[length 40]] Hi", fields: map[string]any{}}
	for i := 0; i < len(fields); i += 2 {
		w.fields[fields[i].(string)] = fields[i+1]
	}
	return w.document("chat", user, true)
}

// of matches the requests of a user.
func of(user string) func(servertest.Request) bool {
	return func(r servertest.Request) bool { return bytes.Contains(r.Body, []byte(fmt.Sprintf("%q", user))) }
}

// times is how often the servers were asked for a user's stream, and by which of them.
func (f *fleet) times(user string) (all []int) {
	for _, s := range f.servers {
		n := 0
		for _, r := range s.Requests() {
			if of(user)(r) {
				n++
			}
		}
		all = append(all, n)
	}
	return all
}

// TestBeforeTheFirstToken: what goes wrong at a server before anything of an answer is there has another one make it, and the client
// sees nothing of that.
func TestBeforeTheFirstToken(t *testing.T) {
	for name, fault := range map[string]servertest.Fault{
		"429":                  {Kind: servertest.TooManyRequests},
		"429, later":           {Kind: servertest.TooManyRequests, Delay: 5 * time.Second},
		"503, later":           {Kind: servertest.Unavailable, Delay: 5 * time.Second},
		"500":                  {Kind: servertest.InternalError},
		"reset":                {Kind: servertest.ResetBefore},
		"silence":              {Kind: servertest.SilentBefore},
		"silence behind heads": {Kind: servertest.Silence},
		"slow":                 {Kind: servertest.SlowFirstToken, Delay: 90 * time.Second},
	} {
		for _, a := range abilities {
			t.Run(a.name+"/"+name, func(t *testing.T) {
				inFleet(t, besides{ability: a, servers: 2}, func(t *testing.T, f *fleet) {
					want, err := f.ask(http.MethodPost, families["chat"], asks("undisturbed"))
					if err != nil || want.status != http.StatusOK {
						t.Fatalf("%+v, %v", want, err)
					}
					first := trouble{attempts: []servertest.Fault{fault}}.faultsAt("disturbed", 0)
					for _, s := range f.servers {
						s.Fail(first...)
					}
					begun := time.Now()
					got, err := f.ask(http.MethodPost, families["chat"], asks("disturbed"))
					if err != nil || comparable(got.body) != comparable(want.body) || got.trailer.Get("X-Connswap-Swaps") != "0" {
						t.Errorf("after %v: %d, swaps %s, %v\n got %q\nwant %q", time.Since(begun), got.status, got.trailer.Get("X-Connswap-Swaps"), err, got.body, want.body)
					}
					t.Logf("%v, requests %v", time.Since(begun), f.times("disturbed"))
					if n := f.times("disturbed"); name != "slow" && n[0]*n[1] == 0 {
						t.Errorf("one server alone was asked: %v", n)
					}
					f.idle(t, 100*time.Millisecond)
				})
			})
		}
	}
}

// TestRefusedByTheServer: what a server says of the request itself reaches the client as it was said, and no other server is asked.
func TestRefusedByTheServer(t *testing.T) {
	for _, a := range abilities {
		t.Run(a.name, func(t *testing.T) {
			inFleet(t, besides{ability: a, servers: 2}, func(t *testing.T, f *fleet) {
				for name, kind := range map[string]servertest.FaultKind{"too long": servertest.ContextTooLong, "filtered": servertest.FilteredPrompt} {
					for _, s := range f.servers {
						s.Fail(servertest.Fault{Kind: kind, Match: of(name), Times: servertest.Forever})
					}
					for _, stream := range []bool{true, false} {
						before := f.times(name)
						got, err := f.ask(http.MethodPost, families["chat"], asks(name, "stream", stream))
						words := map[string]string{"too long": "context", "filtered": "filter"}[name]
						if err != nil || got.status != http.StatusBadRequest || !strings.Contains(got.body, words) || !strings.Contains(got.body, `"error"`) {
							t.Errorf("%s: %d %q, %v", name, got.status, got.body, err)
						}
						if after := f.times(name); after[0]+after[1] != before[0]+before[1]+1 {
							t.Errorf("%s: asked %v times, before %v", name, after, before)
						}
					}
				}
			})
		})
	}
}

// TestFlappingServerRests: a server that fails again and again gets nothing for a while, and is used again once it makes tokens.
func TestFlappingServerRests(t *testing.T) {
	inFleet(t, besides{ability: abilities[0], servers: 2}, func(t *testing.T, f *fleet) {
		f.servers[0].Fail(servertest.Fault{Kind: servertest.InternalError, Times: servertest.Forever})
		for range 100 {
			got, err := f.ask(http.MethodPost, families["chat"], asks("flaps"))
			if err != nil || got.status != http.StatusOK {
				t.Errorf("%d %q, %v", got.status, got.body, err)
			}
			time.Sleep(600 * time.Millisecond)
		}
		if n := f.times("flaps"); n[0] > 30 || n[1] != 100 {
			t.Errorf("the servers were asked %v times", n)
		}
		t.Logf("asked %v times", f.times("flaps"))
		f.servers[0].Heal()
		time.Sleep(2 * time.Minute)
		for range 10 {
			if got, err := f.ask(http.MethodPost, families["chat"], asks("healed")); err != nil || got.status != http.StatusOK {
				t.Errorf("%+v, %v", got, err)
			}
		}
		if n := f.times("healed"); n[0] == 0 {
			t.Errorf("the servers were asked %v times", n)
		}
	})
}

// TestGoneClients: a client that goes has its server stop at once, over HTTP and natively, wherever the answer is.
func TestGoneClients(t *testing.T) {
	for _, a := range abilities {
		a.options.TokenInterval, a.options.Prefill = 20*time.Millisecond, 300*time.Millisecond
		t.Run(a.name, func(t *testing.T) {
			inFleet(t, besides{ability: a, servers: 2}, func(t *testing.T, f *fleet) {
				for _, after := range []time.Duration{100 * time.Millisecond, 350 * time.Millisecond, 700 * time.Millisecond} {
					response := make(chan *http.Response, 1)
					ctx, leave := context.WithCancel(f.cluster.ctx)
					go func() {
						client := *f.front
						client.ctx = ctx
						r, _ := client.open(http.MethodPost, families["chat"], asks("gone")) //nolint:bodyclose // below
						response <- r
					}()
					time.Sleep(after)
					if n := f.running(); n != 1 {
						t.Errorf("%d run after %v", n, after)
					}
					leave()
					f.idle(t, 100*time.Millisecond)
					if r := <-response; r != nil {
						_ = r.Body.Close()
					}
				}
				conn, err := f.dial("native")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close() //nolint:errcheck // the run is over
				stream := f.native(t, conn, false)
				time.Sleep(500 * time.Millisecond)
				if n := f.running(); n != 1 {
					t.Errorf("%d run natively", n)
				}
				stream.Close()
				f.idle(t, 100*time.Millisecond)
				f.native(t, conn, true)
				time.Sleep(500 * time.Millisecond)
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
				f.idle(t, 100*time.Millisecond)
			})
		})
	}
}

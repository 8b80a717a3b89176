package operator_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/services/client/operator"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/wire"
)

func content(o *fakedirector.Operation) error { return o.Result(`{"message": "done"}`) }

// Nobody but an operator gets an answer.
func TestOnlyOperatorsAreServed(t *testing.T) {
	inWorld(t, func(t *world) {
		t.serve(content)
		foreign, err := identity.NewDevelopment(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		roots, err := t.ids[identity.Operator].Roots()
		if err != nil {
			t.Fatal(err)
		}
		for name, test := range map[string]struct {
			tls  identity.Source
			want error
		}{
			"operator":    {t.ids[identity.Operator], nil},
			"client":      {t.ids[identity.Client], &wire.Error{Code: wire.CodeUnauthorized}},
			"worker":      {t.ids[identity.Worker], &wire.Error{Code: wire.CodeUnauthorized}},
			"nobody":      {identity.Static(nil, roots), &wire.Error{Code: wire.CodeUnauthorized}},
			"a stranger":  {foreign[identity.Operator], &wire.Error{Code: wire.CodeUnauthorized}},
			"nothing set": {nil, &wire.Error{Code: wire.CodeInvalid}},
		} {
			client, err := operator.Dial(t.Context(), "director:61001", operator.Options{TLS: test.tls, Network: t.desk})
			if err == nil {
				err = client.Undrain(t.Context(), "worker-a")
				client.Close() //nolint:errcheck // not under test
			}
			if !errors.Is(err, test.want) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}

func TestDialWhereNobodyIs(t *testing.T) {
	inWorld(t, func(t *world) {
		for target, want := range map[string]wire.Code{
			"director:61001": wire.CodeLost, "nowhere:61001": wire.CodeLost, "nonsense": wire.CodeLost,
		} {
			if _, err := operator.Dial(t.Context(), target, t.options()); !errors.Is(err, &wire.Error{Code: want}) {
				t.Errorf("%s: got %v", target, err)
			}
		}
		for addr, greeting := range map[string]string{
			":61000": "220 mail.example ESMTP\r\n", ":61002": "HTTP/1.1 400 Bad Request\r\n\r\n",
		} {
			t.listen(addr, greeting)
			if _, err := operator.Dial(t.Context(), "director"+addr, t.options()); !errors.Is(err, &wire.Error{Code: wire.CodeVersion}) {
				t.Errorf("another port, which says %q: got %v", greeting, err)
			}
		}
		t.director.Crash()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := operator.Dial(ctx, "director:61001", t.options()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// A name that stands for several directors leads to the first that is there.
func TestDialTriesEveryAddress(t *testing.T) {
	inWorld(t, func(t *world) {
		t.serve(content)
		t.net.Alias("directors", t.net.Host("down"), t.director)
		client, err := operator.Dial(t.Context(), "directors:61001", t.options())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close() //nolint:errcheck // not under test
		if err := client.Confirm(t.Context(), "conn-1", 0); err != nil {
			t.Error(err)
		}
	})
}

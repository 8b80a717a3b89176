package connswap_test

import (
	"context"
	"fmt"
	"log"

	"github.com/connswap/connswap/services/client/connswap"
	"github.com/connswap/connswap/shared/identity"
)

// A program that prints a text, and where another worker went on with it.
func Example() {
	ctx := context.Background()
	certs, err := identity.FromDir(".dev/certs", identity.Client)
	if err != nil {
		log.Fatal(err)
	}
	conn, err := connswap.Dial(ctx, "localhost:61000", connswap.Options{TLS: certs})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the program ends anyway

	stream, err := conn.Generate(ctx, connswap.Request{Prompt: "Once upon a time", MaxTokens: 100, Seed: 1})
	if err != nil {
		log.Print(err)
		return
	}
	for event, err := range stream.Events() {
		if err != nil {
			log.Print(err)
			return
		}
		switch e := event.(type) {
		case connswap.Token:
			fmt.Print(e.Text)
		case connswap.Swapped:
			fmt.Printf(" [%s → %s after %v] ", e.From, e.To, e.Gap)
		}
	}
}

package engines_test

import (
	"testing"

	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/engine/enginetest"
)

func TestSuite(t *testing.T) {
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			enginetest.Run(t, func() engine.Engine { return build(t, name) },
				engine.Request{Prompt: "Tell me about the keeper of the light.", MaxTokens: 60, Seed: 7},
				engine.Request{MaxTokens: 1},
				engine.Request{Prompt: "river", MaxTokens: 40, Choices: 1, Seed: 1<<64 - 1},
			)
		})
	}
}

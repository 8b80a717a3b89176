// Package inference has tests of whole systems (director, workers, each a process of its own) behind real inference servers: Ollama, with
// tiny models of nonsense words. `make inference` builds what they need, and runs them.
package inference

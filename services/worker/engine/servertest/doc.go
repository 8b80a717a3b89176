// Package servertest has scripted inference servers: HTTP servers that behave as vLLM, SGLang, llama.cpp's server, Ollama and a plain
// OpenAI-compatible server do, faults included, over a small deterministic language model.
//
//	server := servertest.New(servertest.VLLM, servertest.Options{TokenInterval: 20 * time.Millisecond})
//	url := server.Listen(t)                  // a loopback port, until the end of the test
//	server.Fail(servertest.Fault{Kind: servertest.Reset, At: 17})
//
// A [Server] is an [http.Handler], so it runs on httptest as well, and [Server.Serve] runs it on any listener, those of a simulated network
// included. It waits with timers only, so in a testing/synctest bubble it takes no time. Kill, Start and the refusing of connections need Listen
// or Serve.
//
// # The model
//
// The text is a function of [Options.Weights], of the token ids of the prompt, and of how is sampled: greedily (temperature 0, or the
// server's default where [Options.Greedy] is set), or with the request's seed. Without a seed it is another one each time. With [PositionKeyed], token
// i of the whole sequence, prompt included, is drawn with (seed, i): a continuation by token ids with the same seed is exact. With
// [StateKeyed] the generator starts anew with each request: the same request gives the same text, a continuation with a seed another one.
// Two servers with equal Weights make equal texts, of whatever kind they are. With [Options.BatchDependent] the text is another one in places while
// the server generates for others.
//
// The vocabulary has words (" fox"), fragments ("un", "ing") and single bytes. Continuing by text drifts, because what was made as fragments may be
// one word when it is tokenized again. Characters beyond ASCII are several tokens, an emoji four; the servers put only whole characters out, each
// in its own way: chunks without text (vLLM), one chunk for all tokens (the others).
//
// A prompt may contain directives, in double brackets, for what kind of answer it wants. They work in any message, and in plain prompts,
// where the last one counts as the end of the question:
//
//	[[length 200]]  an answer of exactly 200 tokens (of content; the default is about Options.Length)
//	[[think 12]]    12 tokens of reasoning first
//	[[refuse]]      a refusal
//	[[calls 2]]     two tool calls, if the request has tools; the default is one
//	[[talk]]        no tool call, although the request has tools
//	[[emoji]]       characters of several tokens are frequent
//
// Tools in a request (unless tool_choice is none) give tool calls to the first ones, with ids that differ at each run. A
// response_format other than text gives a JSON object; as with real guided decoding that object begins anew when it is continued.
//
// # Faults
//
// [Server.Fail] adds faults, [Server.Heal] takes all away. A [Fault] hits the requests for text (chat, completions and the servers' own
// forms) that [Fault.Match] accepts: after Skip of them, the next Times, and where Good is set again after Good others. A request suffers from all
// faults that hit it.
//
// Fault.At says where in a stream: the fault comes in place of, or right before, event At, counted from 0 over all events with data: the role
// chunk is 0, and [DONE] counts too. [Server.Events] says how many events the last stream had.
//
// # Observing
//
// [Server.Requests] is what arrived, [Server.Running] how many requests the server works for now, [Server.Tokens] how many tokens it has
// made. A client that disconnects ends its request at once.
package servertest

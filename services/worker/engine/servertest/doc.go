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
// # The kinds
//
// Each kind has the end points, fields, defaults and error bodies of the server that it is named after, as far as a client that goes on with
// streams has to know them:
//
//	vLLM       /v1/…, /version, /health, /metrics, /tokenize (a prompt or messages), /detokenize. Ids with return_token_ids, in and out.
//	           An event for each token, with or without text; finish and last token in one event. system_fingerprint on the last
//	           event only. continue_final_message wants add_generation_prompt to be false. prompt_logprobs without stream.
//	           Errors in a stream are followed by [DONE]. Completions have 16 tokens if they do not say how many.
//	SGLang     /v1/…, /generate, /get_server_info, /server_info, /get_model_info, /health, /health_generate, /metrics, /tokenize.
//	           Ids out with completions, and with chats that are no streams (else all at the end, as sglext); input_ids in chats.
//	           Flat error bodies, all fields in all events, takes any name for the model. 16 tokens as above.
//	llama.cpp  /v1/…, /completion, /tokenize, /detokenize, /apply-template, /props, /slots, /health, /metrics. Pings. An event of
//	           /completion has the id of its last token only, so those of a character of several tokens are incomplete; no [DONE] there.
//	           n_predict 0 makes nothing. A last message of an assistant is continued. Needs no name of a model.
//	Ollama     /v1/…, /api/version, /api/tags, /api/show, /api/ps. No ids; system_fingerprint is always the same, so go by the digest.
//	           max_tokens 0 has no end. A last message of an assistant is continued. A tool call comes in one event.
//	OpenAI     /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings, and nothing else. Refusals, padding (obfuscation).
//
// A dead engine behind a lively /health is a Fault with SilentBefore and Forever: it hits requests for text only. Options say the rest: a
// server that takes no ids, or does not continue messages.
//
// [Capture] has streams of real servers.
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

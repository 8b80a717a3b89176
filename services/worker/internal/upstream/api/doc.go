// Package api speaks with one inference server over HTTP: vLLM, SGLang, llama.cpp's, Ollama, or any with OpenAI's API.
//
// It knows how each kind is asked and how it answers, one file for each, and decides nothing: what is done with an answer, and where a
// text goes on, is for package upstream; when a server is asked how it is, for package monitor.
package api

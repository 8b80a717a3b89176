package servertest

import "embed"

//go:embed testdata/*.sse
var captures embed.FS

// Capture returns the stream of a real server, by the name of its file in testdata without .sse: see the README there. The error is that
// there is none.
func Capture(name string) (string, error) {
	data, err := captures.ReadFile("testdata/" + name + ".sse")
	return string(data), err
}

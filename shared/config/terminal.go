package config

import "os"

// PlainTerminal reports whether whoever runs a program wants no escapes on a terminal: NO_COLOR (https://no-color.org) is set,
// or the terminal says that it knows none.
func PlainTerminal() bool { return os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" }

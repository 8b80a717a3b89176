package config

import (
	"fmt"
	"strings"
)

const preamble = `# Configuration

<!-- Generated from the structs in shared/config: go run ./shared/config/gendoc -->

Every role is configured by environment variables. A role prints its own table with ` + "`--help`" + `. Variables of other
roles are ignored, so that one environment can serve all of them; a variable that starts with ` + "`" + Prefix + "_`" + ` and that
no role knows is refused at start, and so is a value that cannot be right: one line for each, all at once, exit code 2.
A variable that is set but empty has its default. What Kubernetes sets for a Service whose name begins with
` + "`connection-swap`" + ` (` + "`…_SERVICE_HOST`, `…_PORT_61000_UDP`" + ` …), and Docker for a linked container, is ignored.

Numbers are decimal: 010, 0x10 and 1_000 are refused, with a word on what to write. Durations are numbers with units:
` + "`250ms`, `5s`, `1m30s`" + `. Addresses are ` + "`host:port`" + `; an address to serve on may leave out the host.

` + "`" + Prefix + "_DIRECTOR_MGMT_ADDR`" + ` has three readings: a director serves on it, a worker registers at it (and may be
given a list), and operators' commands go to it.
`

// Markdown is docs/CONFIGURATION.md.
func Markdown() string {
	var doc strings.Builder
	doc.WriteString(preamble)
	section(&doc, "All roles", Variables(Common{}))
	section(&doc, "Director and worker", Variables(Peer{}))
	shared := len(Variables(Common{})) + len(Variables(Peer{}))
	section(&doc, "Director", Variables(Director{})[shared:])
	section(&doc, "Worker", Variables(Worker{})[shared:])
	section(&doc, "Client", Variables(Client{})[len(Variables(Common{})):])
	section(&doc, "Operator's commands of the client", Variables(Operator{})[len(Variables(Common{})):])
	return doc.String()
}

func section(doc *strings.Builder, title string, variables []Variable) {
	fmt.Fprintf(doc, "\n## %s\n\n| variable | type | default | meaning |\n|---|---|---|---|\n", title)
	for _, v := range variables {
		byDefault := ""
		if v.Default != "" {
			byDefault = "`" + v.Default + "`"
		}
		fmt.Fprintf(doc, "| `%s` | %s | %s | %s |\n", v.Name, v.Type, byDefault, strings.ReplaceAll(v.Desc, "|", `\|`))
	}
}

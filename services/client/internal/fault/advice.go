package fault

import "github.com/connswap/connswap/shared/wire"

// advice is what to do about an error of a Code whose message cannot say it.
var advice = map[wire.Code]string{
	wire.CodeNoWorker:    "start workers, or see the director's log why it has none",
	wire.CodePoison:      "the request is the likely cause: change it, or see the workers' logs",
	wire.CodeEngine:      "see the worker's log",
	wire.CodeClientStall: "read the stream as it comes, or have the director wait longer for readers",
	wire.CodeLost:        "try again once the director is there",
	wire.CodeShutdown:    "ask again once the director is back",
	wire.CodeUnavailable: "try again once the director is there",
	wire.CodeInternal:    defect,
	wire.CodeProtocol:    defect,
	wire.CodeDiverged:    defect,

	wire.CodeResumeTaken:  "somebody has this client's secret: ask again on a new connection",
	wire.CodeResumeStream: "ask again",
	wire.CodeResumeDigest: defect,
	wire.CodeResumeAhead:  defect,
	wire.CodeResumeBehind: defect,
}

const defect = "that is a defect, please report it with the director's log"

// Advice returns what to do about an error of this Code, in words that go behind its message; empty where that is enough.
func Advice(code wire.Code) string { return advice[code] }

package wire

import "encoding/json"

// Detail is what the Data of a chunk says, as JSON. Fields that are not known are ignored.
type Detail struct {
	// Call says which tool call of the choice the chunk belongs to, on the channel ToolCall. The first chunk of a call has the
	// name of the tool as its text, those that follow have pieces of its arguments. A chunk without belongs to the call that the
	// chunk before it belonged to.
	Call *Call `json:"call,omitempty"`
	// Logprobs are the log probabilities of the chunk's tokens, in the form of the API whose request it answers.
	Logprobs json.RawMessage `json:"logprobs,omitempty"`
}

// Call is one tool call of a choice.
type Call struct {
	Index int    `json:"index"`          // 0, 1, 2 …
	Type  string `json:"type,omitempty"` // function, or custom for one whose input is text; empty for function
}

// Types of tool calls.
const (
	CallFunction = "function"
	CallCustom   = "custom"
)

// ParseDetail returns what a chunk's Data says; nil for none, and for what is no Detail.
func ParseDetail(data []byte) *Detail {
	if len(data) == 0 {
		return nil
	}
	d := &Detail{}
	if json.Unmarshal(data, d) != nil {
		return nil
	}
	return d
}

package servertest

import (
	"encoding/json"
	"strings"
)

// message is one of a chat.
type message struct {
	Role             string          `json:"role"`
	Content          json.RawMessage `json:"content"` // a text, parts, or null
	Reasoning        string          `json:"reasoning"`
	ReasoningContent string          `json:"reasoning_content"`
	ToolCalls        []struct {
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

// text is the content as one text.
func (m message) text() string {
	var text string
	if json.Unmarshal(m.Content, &text) == nil {
		return text
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(m.Content, &parts) != nil {
		return ""
	}
	var all strings.Builder
	for _, part := range parts {
		all.WriteString(part.Text)
	}
	return all.String()
}

// render is the chat template of all models here. With goOn, the last message is left open, to be continued; with answer, that of an
// assistant is begun.
func render(messages []message, tools []string, goOn, answer bool) string {
	var text strings.Builder
	if len(tools) > 0 {
		text.WriteString("<|system|>tools: " + strings.Join(tools, ", ") + "<|end|>")
	}
	for i, m := range messages {
		text.WriteString("<|" + roleToken(m.Role) + "|>")
		if reasoning := m.Reasoning + m.ReasoningContent; reasoning != "" {
			text.WriteString("<think>" + reasoning + "</think>")
		}
		text.WriteString(m.text())
		for _, call := range m.ToolCalls {
			text.WriteString(`<tool_call>{"name": "` + call.Function.Name + `", "arguments": ` + call.Function.Arguments + `}</tool_call>`)
		}
		if i < len(messages)-1 || !goOn {
			text.WriteString("<|end|>")
		}
	}
	if answer {
		text.WriteString("<|assistant|>")
	}
	return text.String()
}

func roleToken(role string) string {
	switch role {
	case "assistant", "tool", "user":
		return role
	default: // developer as well
		return "system"
	}
}

package upstream

import (
	"encoding/json"
	"maps"
	"slices"
)

// logprobs counts the log probabilities of one choice of an answer that is made again. An API has them in lists, with an entry for each
// token: content and refusal in chats, tokens, token_logprobs and so on in completions. Of each list the first entries are in the stream
// already, whatever chunks they came in. An entry that was skipped may belong to a piece whose text was not, so what is new waits for the
// next piece.
type logprobs struct {
	owed  map[string]int // entries of each list that the stream has, and that were not made again yet
	lists map[string][]json.RawMessage
	raw   json.RawMessage // as they came, where nothing has to be taken from them
}

// parse returns the lists of log probabilities; nil where there are none.
func parse(raw json.RawMessage) map[string][]json.RawMessage {
	var fields map[string]json.RawMessage
	if len(raw) == 0 || json.Unmarshal(raw, &fields) != nil {
		return nil
	}
	lists := make(map[string][]json.RawMessage)
	for name, field := range fields {
		var list []json.RawMessage
		if json.Unmarshal(field, &list) == nil && len(list) > 0 {
			lists[name] = list
		}
	}
	return lists
}

// expect takes those of a chunk of the stream.
func (l *logprobs) expect(raw json.RawMessage) {
	for name, list := range parse(raw) {
		if l.owed == nil {
			l.owed = make(map[string]int)
		}
		l.owed[name] += len(list)
	}
}

// again counts the new ones again, of which the stream may have some now.
func (l *logprobs) again() {
	lists := l.lists
	if l.raw != nil {
		lists = parse(l.raw)
	}
	l.lists, l.raw = nil, nil
	l.add(lists)
}

// take takes those of a piece of the answer.
func (l *logprobs) take(raw json.RawMessage) {
	if len(raw) == 0 {
		return
	}
	if len(l.owed) == 0 && l.lists == nil && l.raw == nil {
		l.raw = raw
		return
	}
	if l.raw != nil {
		l.lists = parse(l.raw)
		l.raw = nil
	}
	l.add(parse(raw))
}

func (l *logprobs) add(lists map[string][]json.RawMessage) {
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		list := lists[name]
		drop := min(l.owed[name], len(list))
		if drop > 0 {
			if l.owed[name] -= drop; l.owed[name] == 0 {
				delete(l.owed, name)
			}
		}
		if drop < len(list) {
			if l.lists == nil {
				l.lists = make(map[string][]json.RawMessage)
			}
			l.lists[name] = append(slices.Clip(l.lists[name]), list[drop:]...)
		}
	}
}

// rest returns the new ones for the next piece; nil for none.
func (l *logprobs) rest() json.RawMessage {
	raw, lists := l.raw, l.lists
	l.raw, l.lists = nil, nil
	if raw != nil || lists == nil {
		return raw
	}
	raw, _ = json.Marshal(lists) // it was parsed before
	return raw
}

// splitLogprobs returns log probabilities in parts, each with no more bytes than a chunk has room for, as far as its entries allow that:
// what one entry has beyond is left out.
func splitLogprobs(raw json.RawMessage, most int) []json.RawMessage {
	if len(raw) == 0 {
		return nil
	}
	if len(raw) <= most {
		return []json.RawMessage{raw}
	}
	first, second := make(map[string][]json.RawMessage), make(map[string][]json.RawMessage)
	for name, list := range parse(raw) {
		half := (len(list) + 1) / 2
		first[name] = list[:half]
		if half < len(list) {
			second[name] = list[half:]
		}
	}
	if len(second) == 0 {
		return nil
	}
	var parts []json.RawMessage
	for _, half := range []map[string][]json.RawMessage{first, second} {
		b, _ := json.Marshal(half) // it was parsed before
		parts = append(parts, splitLogprobs(b, most)...)
	}
	return parts
}

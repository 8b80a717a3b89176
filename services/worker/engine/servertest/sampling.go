package servertest

import (
	"math"
	"slices"
)

// sampling is how a request chooses among candidates.
type sampling struct {
	temperature float64 // 0 is greedy
	seed        uint64
	keyed       Sampler
	topK        int  // 0 for all
	penalized   bool // frequency or presence: what the request itself has made is avoided
	repetition  bool // what is anywhere in the sequence is avoided
}

// choice is a token that was chosen.
type choice struct {
	token   int
	logprob float64
	top     []candidate // the likeliest, the chosen one perhaps not among them
}

// candidate is a token that could have been chosen.
type candidate struct {
	token   int
	logprob float64
}

// choose chooses the next token of the sequence. index is which of n texts it is.
func (s sampling) choose(sequence *sequence, candidates []int, index int) choice {
	open := candidates
	if s.topK > 0 {
		open = open[:min(s.topK, len(open))]
	}
	at := s.draw(sequence, open, index)
	token := open[at]
	return choice{token: token, logprob: logprob(slices.Index(candidates, token), len(candidates)), top: rank(candidates)}
}

func (s sampling) draw(sequence *sequence, open []int, index int) int {
	weights := make([]float64, len(open))
	sum := 0.0
	for i, token := range open {
		weights[i] = s.weight(i)
		if s.avoids(sequence, token) {
			weights[i] *= 1e-6
		}
		sum += weights[i]
	}
	if s.temperature <= 0 {
		return slices.Index(weights, slices.Max(weights))
	}
	u := s.random(sequence, index) * sum
	for i, weight := range weights {
		if u < weight {
			return i
		}
		u -= weight
	}
	return len(open) - 1
}

func (s sampling) weight(place int) float64 {
	if s.temperature <= 0 {
		return 1 / float64(1+place)
	}
	return math.Exp(-float64(place) / s.temperature)
}

func (s sampling) avoids(sequence *sequence, token int) bool {
	return s.penalized && slices.Contains(sequence.tokens[sequence.prompt:], token) ||
		s.repetition && slices.Contains(sequence.tokens, token)
}

// random is from [0, 1).
func (s sampling) random(sequence *sequence, index int) float64 {
	place := len(sequence.tokens)
	if s.keyed == StateKeyed {
		place -= sequence.prompt
	}
	x := mix(mix(s.seed, uint64(index)), uint64(place))
	return float64(x>>11) / (1 << 53)
}

// logprob is that of the candidate at a place among so many.
func logprob(place, count int) float64 {
	sum := 0.0
	for i := range count {
		sum += math.Exp(-float64(i))
	}
	return -float64(place) - math.Log(sum)
}

func rank(candidates []int) []candidate {
	ranked := make([]candidate, len(candidates))
	for i, token := range candidates {
		ranked[i] = candidate{token: token, logprob: logprob(i, len(candidates))}
	}
	return ranked
}

// rankOf is the place of a token among candidates, from 1 on, and its logprob.
func rankOf(token int, candidates []int) (int, float64) {
	if i := slices.Index(candidates, token); i >= 0 {
		return i + 1, logprob(i, len(candidates))
	}
	return 100 + token, -20
}

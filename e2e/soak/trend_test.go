package main

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// noise is a series whose values depend on those before by a factor, with a standard deviation of 1.
func noise(r *rand.Rand, n int, factor float64) []point {
	points := make([]point, n)
	value := r.NormFloat64()
	for i := range points {
		value = factor*value + math.Sqrt(1-factor*factor)*r.NormFloat64()
		points[i] = point{float64(i) / 2, value}
	}
	return points
}

// TestErrorIsNotTooSmall: whatever moves the values, the line that they follow, flat, is within three standard errors of
// the one that is found; nearly always.
func TestErrorIsNotTooSmall(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, factor := range []float64{0, 0.5, 0.8, 0.9, 0.95} {
		for _, n := range []int{100, 1000} {
			if float64(n) < 10/(1-factor) {
				continue // too short to say anything about itself
			}
			const runs = 400
			var outside int
			for range runs {
				if f := fit(noise(r, n, factor)); math.Abs(f.slope) > 3*f.error {
					outside++
				}
			}
			t.Logf("factor %v, %d points: %d of %d beyond three standard errors", factor, n, outside, runs)
			require.Less(t, outside, runs/20, "factor %v, %d points", factor, n)
		}
	}
}

// TestErrorIsNotTooLarge: it becomes small where there is nothing but noise, so that a leak stands out.
func TestErrorIsNotTooLarge(t *testing.T) {
	f := fit(noise(rand.New(rand.NewPCG(2, 2)), 1000, 0.5))
	independent := math.Sqrt(12.0 / 1000 / (500 * 500)) // of so many points over so many seconds
	require.Less(t, f.error, 4*independent)
	require.Greater(t, f.error, independent)
}

// sawtooth is a heap: it grows, and is collected.
func sawtooth(r *rand.Rand, n int, leak float64) []point {
	points := make([]point, n)
	level := 0.0
	for i := range points {
		if level += r.Float64() * 2; level > 10 {
			level = 0
		}
		points[i] = point{float64(i) / 2, 30 + level + leak*float64(i)/2}
	}
	return points
}

func TestLeaksAreFound(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for name, points := range map[string]func(leak float64) []point{
		"a heap":        func(leak float64) []point { return sawtooth(r, 100, leak) },
		"a longer run":  func(leak float64) []point { return sawtooth(r, 3600, leak) },
		"nothing moves": func(leak float64) []point { return tilted(make([]float64, 100), leak) },
	} {
		for range 100 {
			q := quantity{unit: "MiB", least: 2, part: 0.05}
			leaky, flat := points(0.3), points(0) // 15 in 50 s, 540 in half an hour
			require.Equal(t, growing, q.judge(leaky), name)
			require.NotEqual(t, growing, q.judge(flat), name)
		}
	}
}

func tilted(values []float64, slope float64) []point {
	points := make([]point, len(values))
	for i, value := range values {
		points[i] = point{float64(i) / 2, value + slope*float64(i)/2}
	}
	return points
}

// TestWhatIsNotKnown: a series that says nothing is not called flat.
func TestWhatIsNotKnown(t *testing.T) {
	q := quantity{unit: "MiB", least: 1, part: 0.05}
	require.Equal(t, unclear, q.judge(tilted([]float64{1, 2, 3}, 0)), "three points")
	wild := noise(rand.New(rand.NewPCG(4, 4)), 100, 0.95)
	for i := range wild {
		wild[i].value *= 50
	}
	require.Equal(t, unclear, q.judge(wild))
	require.Equal(t, flat, q.judge(noise(rand.New(rand.NewPCG(5, 5)), 1000, 0)))
}

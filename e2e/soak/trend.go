package main

import "math"

// point is a value at a time, in seconds.
type point struct{ at, value float64 }

// trend is a line through points.
type trend struct {
	mean  float64
	slope float64 // per second
	error float64 // standard error of slope, for values that depend on those before
}

// fit returns the line with the least squares. Its error takes into account how long what moves the values lasts: of n
// points of which each is much like the one before, fewer than n say something new.
func fit(points []point) trend {
	n := float64(len(points))
	var at, value float64
	for _, p := range points {
		at += p.at / n
		value += p.value / n
	}
	var tt, tv float64
	for _, p := range points {
		tt += (p.at - at) * (p.at - at)
		tv += (p.at - at) * (p.value - value)
	}
	t := trend{mean: value, slope: tv / tt}
	rest := make([]float64, len(points))
	var squares float64
	for i, p := range points {
		rest[i] = p.value - value - t.slope*(p.at-at)
		squares += rest[i] * rest[i]
	}
	t.error = math.Sqrt(squares / (n - 2) / tt * memory(rest))
	return t
}

// memory is the integrated autocorrelation time of values, in points: how many of them say as much as one that depends on
// none. The sum ends where correlations are lost in the noise (Geyer's initial positive sequence), and is corrected for the
// correlation that a fitted line takes out of a short series.
func memory(values []float64) float64 {
	n := len(values)
	correlation := func(lag int) (sum float64) {
		for i := lag; i < n; i++ {
			sum += values[i] * values[i-lag]
		}
		return sum
	}
	all := correlation(0)
	if all == 0 {
		return 1
	}
	sum := 1.0
	for lag := 1; lag+1 < n/2; lag += 2 {
		pair := (correlation(lag) + correlation(lag+1)) / all
		if pair <= 0 {
			break
		}
		sum += 2 * pair
	}
	sum = max(sum, 1)
	return sum / max(1-4*sum/float64(n), 0.1)
}

// growth is by how much a value grew over a time, at least and at most, for all that the noise allows: three standard errors
// either way.
func (t trend) growth(seconds float64) (least, most float64) {
	return (t.slope - 3*t.error) * seconds, (t.slope + 3*t.error) * seconds
}

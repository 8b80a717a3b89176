package servertest

import (
	"fmt"
	"net/http"
	"strings"
)

// answerMetrics answers with samples in the text format of Prometheus.
func answerMetrics(w http.ResponseWriter, samples [][2]string) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	for _, sample := range samples {
		name, _, _ := strings.Cut(sample[0], "{")
		kind := "gauge"
		if strings.HasSuffix(name, "_total") {
			kind = "counter"
		}
		_, _ = fmt.Fprintf(w, "# HELP %s As the server says.\n# TYPE %s %s\n%s %s\n", name, name, kind, sample[0], sample[1])
	}
}

// cacheUse is the part of the key-value cache that running requests take, from 0 to 1, in text.
func (s *Server) cacheUse(running int) string {
	places := s.options.Capacity
	if places == 0 {
		places = 256
	}
	return fmt.Sprintf("%.4f", min(1, float64(running)/float64(places)))
}

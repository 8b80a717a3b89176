package wire

// Classes of continuity, as wirepb.Request numbers them: what is promised for a stream whose worker is lost.
const (
	ContinuityNone     = iota // it ends in an explicit error
	ContinuityText            // another worker continues the text that was delivered
	ContinuityVerified        // what was delivered was made again, and is the same
	ContinuityExact           // the text is the one that an undisturbed run would have had
)

var continuities = [...]string{"none", "text", "verified", "exact"}

// Continuity returns the name of a class.
func Continuity(class uint32) string { return continuities[min(class, ContinuityExact)] }

// ParseContinuity returns the class of that name.
func ParseContinuity(name string) (class uint32, ok bool) {
	for i, n := range continuities {
		if n == name {
			return uint32(i), true
		}
	}
	return 0, false
}

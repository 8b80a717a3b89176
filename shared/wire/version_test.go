package wire

import "testing"

func TestPeerVersions(t *testing.T) {
	for _, c := range []struct {
		linked  string
		claimed uint32
		want    string
	}{
		{"", 0, "3"},
		{"", 1, "1"},
		{"7", 0, "7"},
		{"7", 3, "3"},
		{"many", 0, "3"},
		{"0", 0, "3"},
	} {
		newest = c.linked
		if got := PeerVersions(c.claimed).String(); got != c.want {
			t.Errorf("a build for %q that claims %d speaks %s, want %s", c.linked, c.claimed, got, c.want)
		}
	}
	newest = ""
}

func TestCommonVersion(t *testing.T) {
	for _, c := range []struct {
		one, other Versions
		want       uint32
	}{
		{Versions{2, 2}, Versions{2, 2}, 2},
		{Versions{2, 4}, Versions{3, 7}, 4},
		{Versions{2, 3}, Versions{4, 5}, 0},
		{Versions{2, 2}, Versions{0, 0}, 0},
		{Versions{2, 2}, Versions{1, 1}, 0},
		{Versions{1, 3}, Versions{3, 1}, 0}, // it is confused
	} {
		if got, back := c.one.Common(c.other), c.other.Common(c.one); got != c.want || back != c.want {
			t.Errorf("%v and %v have %d in common, and %d the other way", c.one, c.other, got, back)
		}
	}
	if got := (Versions{1, 3}).String(); got != "1 to 3" {
		t.Error(got)
	}
}

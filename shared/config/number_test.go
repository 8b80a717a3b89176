package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/config"
)

func TestFlagsAreDecimal(t *testing.T) {
	var i int
	var u uint64
	for _, text := range []string{"0", "7", "-7"} {
		require.NoError(t, (*config.Int)(&i).Set(text))
		require.Equal(t, text, (*config.Int)(&i).String())
	}
	require.Equal(t, -7, i)
	require.NoError(t, (*config.Uint)(&u).Set("18446744073709551615"))
	require.Equal(t, uint64(1<<64-1), u)
	for text, want := range map[string]string{
		"010":                  "write 10, or 8 if octal was meant",
		"0x10":                 "as 16",
		"+5":                   "as 5",
		"1_000":                "as 1000",
		"five":                 "invalid syntax",
		"":                     "invalid syntax",
		"18446744073709551616": "out of range",
	} {
		require.ErrorContains(t, (*config.Int)(&i).Set(text), want, text)
		require.ErrorContains(t, (*config.Uint)(&u).Set(text), want, text)
	}
	require.Error(t, (*config.Uint)(&u).Set("-1"))
	require.Equal(t, -7, i)
	require.Equal(t, uint64(1<<64-1), u)
	require.Equal(t, "int", (*config.Int)(&i).Type())
	require.Equal(t, "uint", (*config.Uint)(&u).Type())
}

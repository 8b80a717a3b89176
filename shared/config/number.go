package config

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// decimal says how a number has to be written that is not written in decimal digits alone, and nothing if it is, or if it
// is no number at all. strconv, with which libraries read what people write, guesses a base from how a number begins:
// 010 would be 8.
func decimal(text string) (hint string) {
	digits := strings.TrimPrefix(text, "-")
	switch {
	case isDigits(digits) && (digits == "0" || digits[0] != '0'):
		return ""
	case isDigits(digits):
		sign := text[:len(text)-len(digits)]
		plain := sign + cmp.Or(strings.TrimLeft(digits, "0"), "0")
		if octal, err := strconv.ParseUint(digits, 8, 64); err == nil && fmt.Sprint(sign, octal) != plain {
			return fmt.Sprintf("a number that begins with 0 is decimal to some and octal to others; write %s, or %s%d if octal was meant", plain, sign, octal)
		}
		return "a number must not begin with 0; write " + plain
	}
	if plain, ok := plainly(text); ok {
		return "write it in decimal digits, as " + plain
	}
	return ""
}

// plainly returns what somebody meant by a number with a base, an exponent, a sign, spaces or underscores.
func plainly(text string) (string, bool) {
	text = strings.TrimPrefix(strings.TrimSpace(text), "+")
	if isDigits(text) {
		return cmp.Or(strings.TrimLeft(text, "0"), "0"), true
	}
	if n, err := strconv.ParseInt(text, 0, 64); err == nil {
		return strconv.FormatInt(n, 10), true
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return "", false
	}
	return strconv.FormatFloat(f, 'f', -1, 64), true
}

// decimalFraction is decimal for numbers that may have a fraction and an exponent.
func decimalFraction(text string) (hint string) {
	if !strings.ContainsAny(text, "xX_+") || strings.Contains(strings.ToLower(text), "e+") {
		return ""
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		return "write it in decimal digits, as " + strconv.FormatFloat(f, 'f', -1, 64)
	}
	return ""
}

func isDigits(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }

// Int and Uint are the values of flags, as packages flag and pflag want them: they take decimal digits only.
//
//	flags.Var((*config.Int)(&cfg.MaxTokens), "max-tokens", "tokens to ask for")
type (
	Int  int
	Uint uint64
)

// Set reads a number.
func (i *Int) Set(text string) error {
	number, err := strconv.Atoi(text)
	if err = notDecimal(text, err); err == nil {
		*i = Int(number)
	}
	return err
}

// Set reads a number.
func (u *Uint) Set(text string) error {
	number, err := strconv.ParseUint(text, 10, 64)
	if err = notDecimal(text, err); err == nil {
		*u = Uint(number)
	}
	return err
}

// notDecimal says what is wrong with a flag's number; err is what strconv says.
func notDecimal(text string, err error) error {
	if hint := decimal(text); hint != "" {
		return errors.New(hint)
	}
	return errors.Unwrap(err) // without the text and the name of the function
}

func (i *Int) String() string  { return strconv.Itoa(int(*i)) }
func (u *Uint) String() string { return strconv.FormatUint(uint64(*u), 10) }

// Type is what the help of a command calls the value.
func (*Int) Type() string { return "int" }

// Type is what the help of a command calls the value.
func (*Uint) Type() string { return "uint" }

package config

import (
	"fmt"
	"io"
	"reflect"
	"text/tabwriter"
	"time"
)

// Variable is one environment variable as a role understands it.
type Variable struct {
	Name    string // with Prefix
	Type    Type
	Default string // as it would be written; empty for none
	Desc    string // meaning and unit
}

// Type is the form that a value has.
type Type string

// Types of variables.
const (
	Text     Type = "text"
	List     Type = "list"
	Whole    Type = "integer"
	Natural  Type = "unsigned integer"
	Fraction Type = "number"
	Duration Type = "duration"
	Switch   Type = "true or false"
)

// want says what a value of the type looks like.
func (t Type) want(example string) string {
	switch t {
	case Duration:
		return fmt.Sprintf("not a duration; give a number with a unit (ms, s, m, h), such as %s", example)
	case Whole:
		return fmt.Sprintf("not a whole number; give one such as %s", example)
	case Natural:
		return fmt.Sprintf("not a whole number from 0 to 18446744073709551615; give one such as %s", example)
	case Fraction:
		return fmt.Sprintf("not a number; give one such as %s", example)
	case Switch:
		return fmt.Sprintf("give true or false; %s if it is left out", example)
	case Text, List:
	}
	return fmt.Sprintf("not understood; give one such as %q", example)
}

// hint says what to write instead of a number whose base would have to be guessed, or nothing.
func (t Type) hint(value string) string {
	switch t {
	case Whole, Natural:
		return decimal(value)
	case Fraction:
		return decimalFraction(value)
	case Text, List, Duration, Switch:
	}
	return ""
}

// Variables lists the variables of cfg, one of the structs of this package or a pointer to one, in their order.
func Variables(cfg any) []Variable {
	t := reflect.TypeOf(cfg)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return variablesOf(t)
}

func variablesOf(t reflect.Type) []Variable {
	var list []Variable
	for field := range t.Fields() {
		if field.Anonymous {
			list = append(list, variablesOf(field.Type)...)
			continue
		}
		list = append(list, Variable{
			Name:    full(field.Tag.Get("envconfig")),
			Type:    typeOf(field.Type),
			Default: field.Tag.Get("default"),
			Desc:    field.Tag.Get("desc"),
		})
	}
	return list
}

func typeOf(t reflect.Type) Type {
	if t == reflect.TypeFor[time.Duration]() {
		return Duration
	}
	switch t.Kind() {
	case reflect.Slice:
		return List
	case reflect.Int:
		return Whole
	case reflect.Uint64:
		return Natural
	case reflect.Float64:
		return Fraction
	case reflect.Bool:
		return Switch
	default:
		return Text
	}
}

// Usage writes the table of cfg's variables for --help. cfg is one of the structs of this package.
func Usage(w io.Writer, cfg any) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VARIABLE\tTYPE\tDEFAULT\tMEANING")
	for _, v := range Variables(cfg) {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", v.Name, v.Type, v.Default, v.Desc)
	}
	return table.Flush()
}

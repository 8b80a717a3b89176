package config

import (
	"errors"
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with the configuration. It reads as one line.
type Problem struct {
	Variable string // full name
	Value    string // as it was given, or as it was understood
	Want     string // what is wrong, and what would be right
}

// Error names the variable, its value and what would be right.
func (p Problem) Error() string { return fmt.Sprintf("%s=%q: %s", p.Variable, p.Value, p.Want) }

// Problems is everything that is wrong with the configuration at once, in the order of the structs.
type Problems struct {
	List []Problem
}

// Error has one line for each problem.
func (p *Problems) Error() string {
	lines := make([]string, len(p.List))
	for i, problem := range p.List {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the problems to errors.As.
func (p *Problems) Unwrap() []error {
	errs := make([]error, len(p.List))
	for i, problem := range p.List {
		errs[i] = problem
	}
	return errs
}

// add notes a problem. name is the name of the variable without Prefix.
func (p *Problems) add(name, value, format string, args ...any) {
	p.List = append(p.List, Problem{Variable: full(name), Value: value, Want: fmt.Sprintf(format, args...)})
}

// blames reports whether one of the variables has a problem already, so that what follows from it need not
// be told as well.
func (p *Problems) blames(names ...string) bool {
	for _, problem := range p.List {
		for _, name := range names {
			if problem.Variable == full(name) {
				return true
			}
		}
	}
	return false
}

// err is p, or nil where there is no problem.
func (p *Problems) err() error {
	if len(p.List) == 0 {
		return nil
	}
	return p
}

// CannotBind is the problem with an address that is well formed but cannot be bound. name is the variable's
// name without Prefix, such as DIRECTOR_USER_ADDR; err is what the system said.
func CannotBind(name, addr string, err error) error {
	reason := err
	for next := errors.Unwrap(reason); next != nil; next = errors.Unwrap(reason) {
		reason = next
	}
	return Problem{Variable: full(name), Value: addr, Want: fmt.Sprintf("cannot be bound: %v; give a free port of an address of this machine", reason)}
}

// CannotUse is the problem with a file that is named as the configuration wants it, but cannot be used. name is as for
// CannotBind; err says what is wrong, and what to do.
func CannotUse(name, path string, err error) error {
	return Problem{Variable: full(name), Value: path, Want: fmt.Sprintf("cannot be used: %v", err)}
}

func full(name string) string { return Prefix + "_" + name }

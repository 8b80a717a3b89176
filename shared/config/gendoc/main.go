// Command gendoc writes docs/CONFIGURATION.md from the structs of package config. Run it from the root of the
// repository; with -check it writes nothing and fails if the file is not up to date.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/connswap/connswap/shared/config"
)

const path = "docs/CONFIGURATION.md"

func main() {
	check := flag.Bool("check", false, "fail if "+path+" is not up to date, instead of writing it")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(check bool) error {
	want := config.Markdown()
	if !check {
		return os.WriteFile(path, []byte(want), 0o644)
	}
	have, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if string(have) != want {
		return fmt.Errorf("%s is not up to date: run go run ./shared/config/gendoc", path)
	}
	return nil
}

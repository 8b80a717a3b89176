package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/connswap/connswap/e2e/bench/part"
	"github.com/connswap/connswap/e2e/internal/cluster"
)

// child is a process that the bench starts of itself: this same binary, run with -part.
type child struct {
	*exec.Cmd
	name    string
	tell    io.WriteCloser
	answers *bufio.Scanner
	log     *os.File
}

// startChild returns once the part says that it is ready: a client is, when tokens flow.
func startChild(ctx context.Context, dir, name string, s part.Setup) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	setup, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	p := &child{Cmd: exec.CommandContext(ctx, self, "-part", name, "-setup", string(setup)), name: name}
	p.Env = append(os.Environ(), "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING=true")
	if p.log, err = os.Create(filepath.Join(dir, strings.ReplaceAll(name, "/", "-")+".log")); err != nil {
		return nil, err
	}
	p.Stderr = p.log
	if p.tell, err = p.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.answers = bufio.NewScanner(out)
	if err := p.Start(); err != nil {
		return nil, err
	}
	if _, err := p.answer(); err != nil {
		return nil, errors.Join(err, p.end())
	}
	return p, nil
}

func (p *child) answer() (string, error) {
	if !p.answers.Scan() {
		said, _ := os.ReadFile(p.log.Name()) // there is an error already
		return "", fmt.Errorf("%s ended: %s", p.name, said)
	}
	return p.answers.Text(), nil
}

func (p *child) ask(command string) (string, error) {
	if _, err := fmt.Fprintln(p.tell, command); err != nil {
		return "", err
	}
	return p.answer()
}

// askFor decodes the answer.
func (p *child) askFor(command string, into any) error {
	answer, err := p.ask(command)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(answer), into)
}

func (p *child) end() error {
	return errors.Join(cluster.Kill(p.Cmd), p.log.Close())
}

// runPart is the other side of startChild.
func runPart(ctx context.Context, name, setup string) error {
	var s part.Setup
	if err := json.Unmarshal([]byte(setup), &s); err != nil {
		return err
	}
	return part.Serve(ctx, name, s, os.Stdin, os.Stdout)
}

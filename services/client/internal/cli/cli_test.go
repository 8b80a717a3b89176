package cli_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/connswap/connswap/services/client/internal/fakedirector"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/wire"
	"github.com/connswap/connswap/shared/wire/wirepb"
)

func TestRequest(t *testing.T) {
	for name, test := range map[string]struct {
		environ map[string]string
		args    []string
		want    *wirepb.Request
	}{
		"defaults":          {nil, nil, &wirepb.Request{Prompt: "Once upon a time", MaxTokens: 256, Seed: 1}},
		"argument":          {nil, []string{"Hello you"}, &wirepb.Request{Prompt: "Hello you", MaxTokens: 256, Seed: 1}},
		"empty argument":    {nil, []string{""}, &wirepb.Request{MaxTokens: 256, Seed: 1}},
		"flags around it":   {nil, []string{"--seed", "7", "Hello", "--max-tokens=9"}, &wirepb.Request{Prompt: "Hello", MaxTokens: 9, Seed: 7}},
		"as many as it may": {nil, []string{"x", "--max-tokens", "0"}, &wirepb.Request{Prompt: "x", Seed: 1}},
		"priority":          {nil, []string{"x", "--priority", "255"}, &wirepb.Request{Prompt: "x", MaxTokens: 256, Seed: 1, Priority: 255}},
		"far too many":      {nil, []string{"x", "--max-tokens", "99999999999"}, &wirepb.Request{Prompt: "x", MaxTokens: 1<<32 - 1, Seed: 1}},
		"a flag's look":     {nil, []string{"--", "--seed"}, &wirepb.Request{Prompt: "--seed", MaxTokens: 256, Seed: 1}},
		"variables": {
			map[string]string{"CLIENT_PROMPT": "Ahoi", "CLIENT_MAX_TOKENS": "3", "CLIENT_SEED": "4", "CLIENT_PRIORITY": "5"},
			nil,
			&wirepb.Request{Prompt: "Ahoi", MaxTokens: 3, Seed: 4, Priority: 5},
		},
		"the command line wins": {
			map[string]string{"CLIENT_PROMPT": "Ahoi", "CLIENT_MAX_TOKENS": "many", "CLIENT_SEED": "4"},
			[]string{"Hello", "--max-tokens", "5", "--seed", "6"},
			&wirepb.Request{Prompt: "Hello", MaxTokens: 5, Seed: 6},
		},
	} {
		t.Run(name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				for name, value := range test.environ {
					t.Setenv(config.Prefix+"_"+name, value)
				}
				var got *wirepb.Request
				t.serve(func(s *fakedirector.Stream) {
					got = s.Request
					s.Send(s.Finish())
				})
				if code, _, stderr := t.run(append([]string{"generate"}, test.args...)...); code != 0 {
					t.Fatalf("exit code %d: %s", code, stderr)
				}
				if got.String() != test.want.String() {
					t.Errorf("asked for %v, want %v", got, test.want)
				}
			})
		})
	}
}

const choices = "the commands are generate, status, events, swap, drain, undrain, rebalance, confirm, veto, version and completion"

// What is wrong is said in one line each, all at once, and nothing is tried.
func TestMisuse(t *testing.T) {
	for name, test := range map[string]struct {
		environ map[string]string
		args    []string
		want    []string // a line each
	}{
		"no command":          {nil, nil, []string{"client: no command; " + choices + " (see client --help)"}},
		"unknown command":     {nil, []string{"generat"}, []string{`client: unknown command "generat"; did you mean generate? (see client --help)`}},
		"quite unknown":       {nil, []string{"make-tea"}, []string{`client: unknown command "make-tea"; ` + choices + " (see client --help)"}},
		"octal":               {nil, []string{"generate", "--seed", "010"}, []string{`write 10, or 8 if octal was meant (see client generate --help)`}},
		"unknown flag":        {nil, []string{"generate", "--seeds=1"}, []string{"client: unknown flag: --seeds (see client generate --help)"}},
		"help on what is not": {nil, []string{"help", "drian"}, []string{`client: unknown command "drian"; did you mean drain? (see client --help)`}},
		"help on too much":    {nil, []string{"help", "drain", "a"}, []string{`client: unexpected argument "a", there is none (see client drain --help)`}},
		"unknown, and help":   {nil, []string{"generat", "--help"}, []string{`client: unknown command "generat"; did you mean generate?`}},
		"no shell":            {nil, []string{"completion"}, []string{"client: no shell; the commands are bash, zsh, fish and powershell (see client completion --help)"}},
		"unknown shell":       {nil, []string{"completion", "elvish"}, []string{`client: unknown command "elvish"; the commands are bash`}},
		"two shells":          {nil, []string{"completion", "bash", "zsh"}, []string{`client: unexpected argument "zsh", there is none`}},
		"two prompts": {
			nil,
			[]string{"generate", "Once", "upon"},
			[]string{"client: 2 arguments, at most one is allowed: quote a prompt of several words (see client generate --help)"},
		},
		"flag's value": {
			nil,
			[]string{"generate", "--output", "xml", "--max-tokens", "-1", "--priority", "256"},
			[]string{
				`client: --max-tokens="-1": too low; give at least 0`,
				`client: --priority="256": out of range; give a number from 0 to 255`,
				`client: --output="xml": unknown; give text, log or json`,
			},
		},
		"all at once": {
			map[string]string{"CLIENT_OUTPUT": "xml", "CLIENT_SEDE": "1", "DIRECTOR_TARGET": "here", "TLS_DIR": "/nowhere"},
			[]string{"generate", "--max-tokens", "-1"},
			[]string{
				"CONNECTION_SWAP_CLIENT_SEDE=", "CONNECTION_SWAP_DIRECTOR_TARGET=", "CONNECTION_SWAP_CLIENT_OUTPUT=",
				"--max-tokens=", "CONNECTION_SWAP_TLS_DIR=",
			},
		},
		"overruled": {
			map[string]string{"CLIENT_OUTPUT": "xml", "TLS_DIR": "/nowhere"},
			[]string{"generate", "--output", "json"},
			[]string{"CONNECTION_SWAP_TLS_DIR="},
		},
	} {
		t.Run(name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				for name, value := range test.environ {
					t.Setenv(config.Prefix+"_"+name, value)
				}
				code, stdout, stderr := t.run(test.args...)
				if code != 2 || stdout != "" {
					t.Errorf("exit code %d, stdout %q", code, stdout)
				}
				lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
				if len(lines) != len(test.want) {
					t.Fatalf("said\n%s", stderr)
				}
				for i, want := range test.want {
					if !strings.Contains(lines[i], want) {
						t.Errorf("said %s\nwant %s", lines[i], want)
					}
				}
			})
		})
	}
}

func TestVersion(t *testing.T) {
	atTerminal(t, func(t *terminal) {
		for _, args := range [][]string{{"--version"}, {"version"}} {
			code, stdout, stderr := t.run(args...)
			want := fmt.Sprintf("connswap client %s (protocol: clients %d, workers %d; %s)\n", wire.Build, wire.Version, wire.NewestPeerVersion, runtime.Version())
			if code != 0 || stdout != want || stderr != "" {
				t.Errorf("%s: exit code %d, %q, %q, want %q", args, code, stdout, stderr, want)
			}
		}
	})
}

// TestCompletion: shells get scripts, and what these ask for.
func TestCompletion(t *testing.T) {
	atTerminal(t, func(t *terminal) {
		for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
			if code, stdout, stderr := t.run("completion", shell); code != 0 || len(stdout) < 1000 || stderr != "" {
				t.Errorf("%s: exit code %d, %d bytes, %s", shell, code, len(stdout), stderr)
			}
		}
		for want, args := range map[string][]string{
			"undrain": {"und"}, "--timeout": {"drain", "--ti"}, "log": {"generate", "--output", "l"}, "json": {"status", "--output", ""},
		} {
			if _, stdout, _ := t.run(append([]string{"__complete"}, args...)...); !strings.HasPrefix(stdout, want) && !strings.Contains(stdout, "\n"+want) {
				t.Errorf("%s: %q, want %s", args, stdout, want)
			}
		}
	})
}

func TestHelp(t *testing.T) {
	atTerminal(t, func(t *terminal) {
		t.Setenv("CONNECTION_SWAP_CLIENT_OUTPUT", "xml") // does not keep anyone from asking
		for _, args := range [][]string{
			{"help"}, {"--help"}, {"-h"}, {"generate", "--help"}, {"generate", "-h"}, {"generate", "Hello", "--help"},
		} {
			code, stdout, stderr := t.run(args...)
			if code != 0 || stderr != "" {
				t.Errorf("%s: exit code %d: %s", args, code, stderr)
			}
			wanted := []string{"client generate [PROMPT] [flags]", "Exit codes:"}
			for _, v := range config.Variables(config.Client{}) {
				wanted = append(wanted, v.Name)
			}
			if args[0] == "generate" {
				wanted = append(wanted, "--max-tokens int", "--seed uint", "--priority int", "--output string", `(default "text")`)
			}
			for _, want := range wanted {
				if !strings.Contains(stdout, want) {
					t.Errorf("%s: %s is missing", args, want)
				}
			}
		}
	})
}

// Without a connection, stderr says what to do; for programs there is an error object.
func TestNoConnection(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(t *terminal)
		want    []string
		code    string
	}{
		"nobody there": {
			func(*terminal) {},
			[]string{"cannot reach a director", `CONNECTION_SWAP_DIRECTOR_TARGET="director:61000"`, "refused", "start one there"},
			"connection_lost",
		},
		"no such name": {
			func(t *terminal) { t.Setenv("CONNECTION_SWAP_DIRECTOR_TARGET", "nowhere:1") },
			[]string{`CONNECTION_SWAP_DIRECTOR_TARGET="nowhere:1"`, "no such host"},
			"connection_lost",
		},
		"stranger": {
			func(t *terminal) {
				dir := t.TempDir()
				if _, err := identity.EnsureDevelopment(dir, time.Now()); err != nil {
					t.Fatal(err)
				}
				t.serve(nil)
				t.Setenv("CONNECTION_SWAP_TLS_DIR", dir)
			},
			[]string{"no trusted connection", "CONNECTION_SWAP_TLS_DIR=", "unknown authority"},
			"unauthorized",
		},
		"full": {
			func(t *terminal) {
				t.serve(nil).Greet = func(conn *quic.Conn, _ *quic.Stream) {
					_ = conn.CloseWithError(wire.QUICRefused, "limit_exceeded: enough")
				}
			},
			[]string{"refuses", "limit_exceeded: enough"},
			"limit_exceeded",
		},
	} {
		t.Run(name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				test.prepare(t)
				code, stdout, stderr := t.run("generate", "--output", "json")
				if code != 1 || strings.Count(stderr, "\n") != 1 {
					t.Errorf("exit code %d: %s", code, stderr)
				}
				for _, want := range test.want {
					if !strings.Contains(stderr, want) {
						t.Errorf("said %snot %q", stderr, want)
					}
				}
				if !strings.HasPrefix(stdout, `{"event":"error"`) || !strings.Contains(stdout, `"code":"`+test.code+`"`) {
					t.Errorf("wrote %s", stdout)
				}
			})
		})
	}
}

// An interrupted client tells the director before it exits.
func TestInterrupt(t *testing.T) {
	for _, output := range []string{"text", "log", "json"} {
		t.Run(output, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				ctx, cancel := context.WithCancelCause(t.Context())
				told := make(chan error, 1)
				t.serve(func(s *fakedirector.Stream) {
					s.Assign()
					s.Say(1, "Once")
					time.AfterFunc(time.Second, func() { cancel(errors.New("interrupt")) })
					<-s.Context().Done()
					<-s.Conn.Context().Done()
					told <- context.Cause(s.Conn.Context())
				})
				code, stdout, stderr := t.runIn(ctx, "generate", "--output", output)
				golden(t, "interrupt-"+output+".golden", transcript(code, stdout, stderr))
				var closed *quic.ApplicationError
				if err := <-told; !errors.As(err, &closed) || !closed.Remote {
					t.Errorf("the director learned of it by %v", err)
				}
			})
		})
	}
}

func TestInterruptWhileDialling(t *testing.T) {
	atTerminal(t, func(t *terminal) {
		t.director.Crash()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if code, _, stderr := t.runIn(ctx, "generate"); code != 130 || stderr != "client: cancelled\n" {
			t.Errorf("exit code %d: %s", code, stderr)
		}
	})
}

// When nobody reads the output any more, a command stops without a word, and always with the same code; the director hears
// of it.
func TestReaderLeaves(t *testing.T) {
	for name, args := range map[string][]string{
		"text": {"generate"}, "log": {"generate", "--output", "log"}, "json": {"generate", "--output", "json"},
		"help": {"--help"}, "help of a command": {"swap", "--help"}, "version": {"--version"}, "completion": {"completion", "bash"},
		"status": {"status"}, "status in json": {"status", "--output", "json"},
		"drain in json": {"drain", "worker-a", "--output", "json"}, "swap": {"swap", "--connection", "conn-1"},
		"undrain": {"undrain", "worker-a"}, "rebalance in json": {"rebalance", "--output", "json"},
		"confirm": {"confirm", "--connection", "conn-1"}, "veto": {"veto", "--connection", "conn-1"},
	} {
		t.Run(name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				t.stdout = failing{&os.PathError{Op: "write", Path: "stdout", Err: syscall.EPIPE}}
				t.serve(func(s *fakedirector.Stream) {
					s.Assign()
					s.Say(1, "Once")
					<-s.Conn.Context().Done()
				})
				t.operate(map[string]answer{
					"status": result(cluster), "swap": result(oneLine(record)), "drain": drained, "rebalance": drained,
					"undrain": done, "confirm": done, "veto": done,
				}[args[0]])
				code, _, stderr := t.run(args...)
				if code != 130 || stderr != "" {
					t.Errorf("exit code %d: %s", code, stderr)
				}
			})
		})
	}
}

func TestFullDisk(t *testing.T) {
	atTerminal(t, func(t *terminal) {
		t.stdout = failing{syscall.ENOSPC}
		t.serve(func(s *fakedirector.Stream) { s.Send(s.Finish()) })
		code, _, stderr := t.run("generate", "--output", "json")
		if code != 1 || !strings.Contains(stderr, "no space left") {
			t.Errorf("exit code %d: %s", code, stderr)
		}
		if code, _, stderr := t.run("--help"); code != 1 || stderr != "client: writing the output: no space left on device\n" {
			t.Errorf("help that nobody can read exits with %d: %s", code, stderr)
		}
	})
}

// A client needs no certificate of its own.
func TestNoCertificate(t *testing.T) {
	atTerminal(t, func(t *terminal) {
		t.serve(func(s *fakedirector.Stream) { s.Send(s.Finish()) })
		for _, name := range []string{"client.pem", "client-key.pem"} {
			if err := os.Remove(filepath.Join(os.Getenv("CONNECTION_SWAP_TLS_DIR"), name)); err != nil {
				t.Fatal(err)
			}
		}
		if code, _, stderr := t.run("generate"); code != 0 {
			t.Errorf("exit code %d: %s", code, stderr)
		}
	})
}

// TestKeyFile: the key comes from a file, which nothing that the client says repeats.
func TestKeyFile(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		code    int
		want    string
	}{
		"right":  {"sk-right\n", 0, ""},
		"wrong":  {"sk-wrong", 1, `that is not the key; both ends need certificates`},
		"empty":  {"\n", 2, "has no key; give a file with one line"},
		"spaces": {"sk-right sk-right\n", 2, "has no key"},
		"long":   {strings.Repeat("a", 1025), 2, "has no key; give a file with one line of up to 1024"},
		"none":   {"", 1, "that is not the key"},
		"absent": {"-", 2, "cannot be read (open "},
	} {
		t.Run(name, func(t *testing.T) {
			atTerminal(t, func(t *terminal) {
				t.serve(func(s *fakedirector.Stream) { s.Send(s.Finish()) }).Key = "sk-right"
				path := filepath.Join(t.TempDir(), "key")
				if test.content != "" {
					t.Setenv("CONNECTION_SWAP_CLIENT_KEY_FILE", path)
				}
				if test.content != "-" {
					if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				code, stdout, stderr := t.run("generate")
				if code != test.code || !strings.Contains(stderr, test.want) || strings.Contains(stdout+stderr, "sk-") {
					t.Errorf("exit code %d: %s%s", code, stdout, stderr)
				}
			})
		})
	}
}

// failing is a writer.
type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// Package settings is what a director's configuration file says, for what variables are bad at: keys, models and limits. All of a
// file counts at once, or nothing of it.
package settings

import (
	"cmp"
	"context"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/services/director/internal/yamlfile"
	"github.com/connswap/connswap/shared/config"
)

// Settings are those of a file, over those of the variables. They are safe for concurrent use, and whoever asks them waits for no
// file.
type Settings struct {
	variables config.Director
	log       *zap.Logger
	now       atomic.Pointer[Snapshot]
	keys      *keys.Keys     // nil where the file has none; does not change after Read
	file      *yamlfile.File // nil for none
	apply     func(config.Director)
}

// Snapshot is what counts at one time. It does not change. Whoever serves a request takes one for all of it.
type Snapshot struct {
	Director config.Director // the variables, with the limits of the file for theirs

	models map[string]model  // by the name that workers have for them
	own    map[string]string // of models, by their other names
}

// model is what a file says of a model.
type model struct {
	aliases    []string
	continuity *uint32
	maxTokens  int // 0 for as many as any
	line       int
}

// Fixed returns the settings of the variables alone.
func Fixed(variables config.Director) *Settings {
	s := &Settings{variables: variables}
	s.now.Store(&Snapshot{Director: variables})
	return s
}

// Read returns the settings of the file that a variable names; if none does, those of the variables alone. The error says which lines
// of the file are wrong, and what would be right. read is told of each time that the file was new later, and what was wrong with
// it; it is optional.
func Read(variables config.Director, log *zap.Logger, read func(error)) (s *Settings, err error) {
	if variables.ConfigFile == "" {
		return Fixed(variables), nil
	}
	s = &Settings{variables: variables, log: log, apply: func(config.Director) {}}
	s.file, err = yamlfile.Open(variables.ConfigFile, yamlfile.Deps{
		Log: log, Take: s.take, Read: read, Kept: "the configuration file cannot be used, what was read before stays",
	})
	return s, err
}

// take makes what a file says count.
func (s *Settings) take(content []byte) error {
	path := s.variables.ConfigFile
	said, err := s.parse(path, content)
	if err != nil {
		return err
	}
	if s.now.Load() == nil && said.hasKeys {
		s.keys = keys.New(s.log)
	}
	s.log.Info("the configuration file was read", zap.String("file", path), zap.Int("models", len(said.models)), zap.Strings("limits", said.limited))
	s.now.Store(&said.Snapshot)
	if s.keys != nil {
		s.keys.Take(said.keys, path)
	}
	s.apply(said.Director)
	return nil
}

// Now returns what counts at present.
func (s *Settings) Now() *Snapshot { return s.now.Load() }

// Keys returns those of the file; nil where it has none.
func (s *Settings) Keys() *keys.Keys { return s.keys }

// Watch takes up what changes in the file, until ctx ends. apply is given the limits then, on the goroutine of Watch.
func (s *Settings) Watch(ctx context.Context, apply func(config.Director)) {
	if s.file == nil {
		<-ctx.Done()
		return
	}
	s.apply = apply
	s.file.Watch(ctx)
}

// Status returns how it is with the file; nil for none.
func (s *Settings) Status() *yamlfile.Status {
	if s.file == nil {
		return nil
	}
	status := s.file.Status()
	return &status
}

// Own returns the name that workers have for a model: what the name is another one for, else the name itself. No name stands for the
// default model, where that goes by another name.
func (s *Snapshot) Own(name string) string {
	if own, ok := s.own[cmp.Or(name, s.Director.DefaultModel)]; ok {
		return own
	}
	return name
}

// Aliases returns the other names of a model, in the order of the file.
func (s *Snapshot) Aliases(model string) []string { return s.models[model].aliases }

// Continuity returns the least class of continuity (see wirepb.Request) of a request for a model that asks for none; otherwise if the
// file says nothing of it.
func (s *Snapshot) Continuity(model string, otherwise uint32) uint32 {
	if class := s.models[model].continuity; class != nil {
		return *class
	}
	return otherwise
}

// MaxTokens returns how many tokens a request for a model may ask for, which is also what one gets that asks for none.
func (s *Snapshot) MaxTokens(model string) int {
	if own := s.models[model].maxTokens; own > 0 {
		return min(own, s.Director.MaxTokens)
	}
	return s.Director.MaxTokens
}

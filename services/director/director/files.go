package director

import (
	"context"

	"go.uber.org/zap"

	"github.com/connswap/connswap/services/director/internal/keys"
	"github.com/connswap/connswap/services/director/internal/metrics"
	"github.com/connswap/connswap/services/director/internal/settings"
	"github.com/connswap/connswap/services/director/internal/yamlfile"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/run"
)

// files is what a director knows from files that its operator writes.
type files struct {
	settings *settings.Settings
	keys     *keys.Keys     // from either file; nil for none
	keysFile *yamlfile.File // nil for none
}

// readFiles reads the files that the configuration names. The error is the problem with the variable of the one that cannot be used.
func readFiles(cfg config.Director, log *zap.Logger, m *metrics.Metrics) (f files, err error) {
	f.settings, err = settings.Read(cfg, log, func(err error) { m.Reloaded("config", err) })
	if err != nil {
		return f, config.CannotUse("DIRECTOR_CONFIG_FILE", cfg.ConfigFile, err)
	}
	f.keys = f.settings.Keys()
	if cfg.KeysFile == "" {
		return f, nil
	}
	f.keys, f.keysFile, err = keys.Read(cfg.KeysFile, log, func(err error) { m.Reloaded("keys", err) })
	if err != nil {
		return f, config.CannotUse("DIRECTOR_KEYS_FILE", cfg.KeysFile, err)
	}
	return f, nil
}

// watchFiles takes up what changes in the files.
func (d *Director) watchFiles(g *run.Group) {
	g.Add("settings", func(ctx context.Context) error {
		d.settings.Watch(ctx, func(cfg config.Director) {
			d.sessions.Configure(sessionConfig(cfg))
			d.shares.SetLimits(limits(cfg, d.memory))
		})
		return nil
	})
	if d.keysFile != nil {
		g.Add("keys", func(ctx context.Context) error {
			d.keysFile.Watch(ctx)
			return nil
		})
	}
}

// keysStatus is how it is with the file of keys; nil for none.
func (d *Director) keysStatus() *yamlfile.Status {
	if d.keysFile == nil {
		return nil
	}
	status := d.keysFile.Status()
	return &status
}

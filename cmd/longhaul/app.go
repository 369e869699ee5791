package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/cmd/longhaul/demo"
	"github.com/longhaul-project/longhaul/gateway/api/client"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// defaultSocket is where a gateway that systemd started listens.
const defaultSocket = "/run/longhaul/api.sock"

// An app is what the commands share: where they read and write, and the work
// that other packages do for them.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	signals        <-chan os.Signal // SIGINT and SIGTERM
	getenv         func(string) string

	// enrol brings a token to the founding gateway and stores the identity
	// that it gives.
	enrol func(context.Context, pki.Request) (*pki.Joined, error)

	// demo sets two sites up on this machine and moves a VM. Nil: not in this build.
	demo func(context.Context, demo.Options) error

	// Flags of all commands.
	socket string
	json   bool
}

// run is the whole command; it returns the exit code.
func (a *app) run(args []string) int {
	root := a.rootCmd()
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	// A flag that is wrong ends the parsing, perhaps before --json.
	return report(a.stderr, a.json || slices.Contains(args, "--json"), err)
}

const rootLong = `Longhaul moves running virtual machines between datacenters.

It asks the gateway of this site, longhauld, over its unix socket. Every command
takes --json; data goes to stdout, progress and messages to stderr.`

const rootExample = `  longhaul demo                      two sites, a WAN and a real VM on this machine
  longhaul status                    what is up
  longhaul migrate db1 --to b        move a VM`

func (a *app) rootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:           "longhaul",
		Short:         "Move running virtual machines between datacenters",
		Long:          rootLong,
		Example:       rootExample,
		Version:       readVersion().Version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs, // group refuses them
		RunE:          group,
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{err, c.CommandPath()}
	})
	root.CompletionOptions.DisableDefaultCmd = false
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "write JSON instead of text")
	flags.StringVar(&a.socket, "socket", "", "the gateway's `path`; LONGHAUL_SOCKET and then "+defaultSocket+" if not given")
	root.AddGroup(&cobra.Group{ID: "setup", Title: "Set up:"}, &cobra.Group{ID: "use", Title: "Use:"})
	root.AddCommand(
		a.initCmd(), a.tokenCmd(), a.joinCmd(), a.revokeCmd(), a.reloadCmd(),
		a.statusCmd(), a.doctorCmd(), a.vmCmd(), a.migrateCmd(), a.jobCmd(), a.forwardCmd(), a.segmentCmd(), a.storeCmd(), a.linkCmd(), a.inspectCmd(), a.demoCmd(),
		a.versionCmd(),
		&cobra.Command{Use: "exit-codes", Short: "Exit codes of all commands", Long: exitTopic},
	)
	strictHelp(root)
	return root
}

// strictHelp makes help for what there is not an error: cobra shows the help of the
// command before it.
func strictHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		panic(err) // cobra has just made it
	}
	show := help.Run
	help.Run = nil
	help.RunE = func(c *cobra.Command, args []string) error {
		if _, rest, err := root.Find(args); err != nil || len(rest) > 0 {
			return &usageError{fmt.Errorf("no help for %q", strings.Join(args, " ")), root.CommandPath()}
		}
		show(c, args)
		return nil
	}
}

// group is what runs when a command that only groups others is called.
func group(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		c.SetOut(c.ErrOrStderr())
		_ = c.Help() // writes to stderr; nobody to tell
		return &usageError{errShown, c.CommandPath()}
	}
	text := fmt.Sprintf("%s has no command %q", c.CommandPath(), args[0])
	if c.SuggestionsMinimumDistance == 0 {
		c.SuggestionsMinimumDistance = 2
	}
	if s := c.SuggestionsFor(args[0]); len(s) > 0 {
		text += "; did you mean " + strings.Join(s, " or ") + "?"
	}
	return &usageError{errors.New(text), c.CommandPath()}
}

// exactly checks the arguments and names the missing one.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return &usageError{fmt.Errorf("%s is missing", names[len(args)]), c.CommandPath()}
		}
		if i := slices.Index(args[:len(names)], ""); i >= 0 {
			return &usageError{fmt.Errorf("%s is empty", names[i]), c.CommandPath()}
		}
		if len(args) > len(names) {
			return &usageError{fmt.Errorf("unexpected argument %q", args[len(names)]), c.CommandPath()}
		}
		return nil
	}
}

// require makes flags mandatory, also where a script's variable that is not set leaves
// one empty. cobra's own check has a text of its own and no exit code.
func require(c *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if !c.Flags().Changed(name) {
			return &usageError{fmt.Errorf("--%s is missing", name), c.CommandPath()}
		}
		if v := c.Flags().Lookup(name).Value.String(); v == "" || v == "[]" {
			return &usageError{fmt.Errorf("--%s is empty", name), c.CommandPath()}
		}
	}
	return nil
}

// flagError says which flag is wrong, if one is.
func flagError(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("--%s: %w", name, err)
}

// do makes a RunE whose ctx ends at the first signal.
func (a *app) do(f func(ctx context.Context, c *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		ctx, cancel := context.WithCancelCause(c.Context())
		defer cancel(nil)
		finished := make(chan struct{})
		go func() {
			select {
			case <-a.signals:
				cancel(errInterrupted)
			case <-ctx.Done():
			}
			close(finished)
		}()
		err := f(ctx, c, args)
		cancel(nil)
		<-finished
		if cause := context.Cause(ctx); err != nil && errors.Is(cause, errInterrupted) {
			return errInterrupted
		}
		return err
	}
}

// gateway gives a client of the gateway that flags and environment name.
func (a *app) gateway() *client.Client { return client.New(a.socketPath()) }

func (a *app) socketPath() string {
	if a.socket != "" {
		return a.socket
	}
	return or(a.getenv("LONGHAUL_SOCKET"), defaultSocket)
}

// show writes v as JSON, or calls text.
func (a *app) show(v any, text func(w io.Writer) error) error {
	if !a.json {
		return text(a.stdout)
	}
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

// say tells the operator something that is not data.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.stderr, format+"\n", args...)
}

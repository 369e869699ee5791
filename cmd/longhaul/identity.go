package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longhaul-project/longhaul/cmd/longhauld/config"
	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api"
	"github.com/longhaul-project/longhaul/gateway/api/client"
	"github.com/longhaul-project/longhaul/internal/conffile"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// A place is the directory of a gateway's config and identity.
type place struct{ dir string }

const defaultDir = "/etc/longhaul"

func (p *place) flag(c *cobra.Command) {
	c.Flags().StringVar(&p.dir, "dir", defaultDir, "`directory` of the config and the identity")
}

// absolute makes the directory one that the gateway finds from wherever it is run:
// the config names it.
func (p *place) absolute() (err error) {
	p.dir, err = filepath.Abs(p.dir)
	return err
}

func (p place) config() string { return filepath.Join(p.dir, "longhauld.yaml") }
func (p place) pki() string    { return filepath.Join(p.dir, "pki") }

// free refuses a directory that has a config already: it is somebody's work.
func (p place) free() error {
	if _, err := os.Lstat(p.config()); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already; move it away first", p.config())
	}
	return nil
}

// write puts the first config in place. It never replaces one.
func (p place) write(s config.Starter) (err error) {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return fmt.Errorf("making the directory of the config: %w", err)
	}
	f, err := os.OpenFile(p.config(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("writing the config: %w", err)
	}
	_, err = f.Write(s.Render())
	return errors.Join(err, f.Sync(), f.Close())
}

// founded is the document of init and join.
type founded struct {
	Site    string   `json:"site"`
	Gateway string   `json:"gateway"`
	Config  string   `json:"config"`
	PKI     string   `json:"pki"`
	Peers   []string `json:"peers"`
}

const initLong = `Founds a fleet: makes its CA, the identity of its first gateway and a commented
config file that works as it is.

The key of the CA stays on this machine. Back the directory up: without it no
other site can join, and certificates cannot be renewed.

Three commands make a pair:
  on the first machine   longhaul init --site a --address gw-a.example.net:7447
                         systemctl enable --now longhauld
                         longhaul token create --site b
  on the second machine  longhaul join TOKEN
                         systemctl enable --now longhauld`

func (a *app) initCmd() *cobra.Command {
	var at place
	s := config.Starter{Gateway: "gw1"}
	fleet := "longhaul"
	c := &cobra.Command{
		Use:     "init --site NAME --address HOST:PORT",
		Short:   "Found a fleet on this machine",
		Long:    initLong,
		Example: "  longhaul init --site a --address gw-a.example.net:7447",
		GroupID: "setup",
		Args:    exactly(),
	}
	flags := c.Flags()
	flags.StringVar(&s.Site, "site", "", "`name` of this site: a-z, 0-9 and -")
	flags.StringVar(&s.Address, "address", "", "`HOST:PORT` for other sites to reach this gateway")
	flags.StringVar(&s.Gateway, "gateway", s.Gateway, "`name` of this gateway")
	flags.StringVar(&fleet, "fleet", fleet, "`name` of the fleet, in its CA's certificate")
	at.flag(c)
	c.RunE = a.do(func(_ context.Context, c *cobra.Command, _ []string) error {
		if err := require(c, "site", "address"); err != nil {
			return err
		}
		err := errors.Join(flagError("site", pki.CheckName(s.Site)), flagError("gateway", pki.CheckName(s.Gateway)), flagError("address", config.CheckDial(s.Address)))
		if err != nil {
			return &usageError{err, c.CommandPath()}
		}
		if err := at.absolute(); err != nil {
			return err
		}
		s.PKI = at.pki()
		if err := at.free(); err != nil {
			return err
		}
		if err := pki.Init(at.pki(), fleet, s.Site, s.Gateway); err != nil {
			return err
		}
		if err := at.write(s); err != nil {
			return err
		}
		return a.showFounded(at, s, "Founded the fleet; this is site "+s.Site+".")
	})
	return c
}

func (a *app) showFounded(at place, s config.Starter, what string) error {
	doc := founded{Site: s.Site, Gateway: s.Gateway, Config: at.config(), PKI: at.pki(), Peers: []string{}}
	for _, p := range s.Peers {
		doc.Peers = append(doc.Peers, p.Site)
	}
	return a.show(doc, func(w io.Writer) error {
		a.say("%s", what)
		t := newTable(w)
		t.row("config", doc.Config)
		t.row("identity", doc.PKI)
		if err := t.flush(); err != nil {
			return err
		}
		a.say("Next: add the hosts of this site to the config, then: systemctl enable --now longhauld")
		if len(s.Peers) == 0 {
			a.say("For each other site: longhaul token create --site NAME")
		}
		return nil
	})
}

func (a *app) tokenCmd() *cobra.Command {
	token := &cobra.Command{
		Use:     "token",
		Short:   "Let other sites in",
		Example: "  longhaul token create --site b",
		GroupID: "setup",
		RunE:    group,
	}
	token.AddCommand(a.tokenCreateCmd())
	return token
}

const tokenLong = `Makes a join token: one line that lets one gateway of a site into the fleet,
once, until it expires. Whoever has the line can join as that site, so hand it
over as you would a password.

It asks the gateway on this machine, which must be the one that founded the
fleet. If none runs yet, the token is made with the CA's key in --dir; the
gateway has to run when the other machine joins.`

func (a *app) tokenCreateCmd() *cobra.Command {
	var at place
	var site string
	ttl := conffile.Duration(time.Hour)
	c := &cobra.Command{
		Use:     "create --site NAME",
		Short:   "Make a join token for a site",
		Long:    tokenLong,
		Example: "  longhaul token create --site b --ttl 1h",
		Args:    exactly(),
	}
	flags := c.Flags()
	flags.StringVar(&site, "site", "", "`name` of the site that will join: a-z, 0-9 and -")
	flags.Var(&ttl, "ttl", "how long the token can be used, up to 720h")
	at.flag(c)
	c.RunE = a.do(func(ctx context.Context, c *cobra.Command, _ []string) error {
		if err := require(c, "site"); err != nil {
			return err
		}
		if err := flagError("site", pki.CheckName(site)); err != nil {
			return &usageError{err, c.CommandPath()}
		}
		if d := time.Duration(ttl); d < time.Second || d > pki.MaxTokenLife {
			return &usageError{fmt.Errorf("--ttl %s: want 1s to 720h", ttl), c.CommandPath()}
		}
		tok, err := a.gateway().CreateToken(ctx, site, time.Duration(ttl))
		if errors.Is(err, client.ErrUnreachable) {
			tok, err = a.offlineToken(at, site, time.Duration(ttl), err)
		}
		if err != nil {
			return err
		}
		return a.show(tok, func(w io.Writer) error {
			a.say("On the machine of site %s, until %s:  longhaul join TOKEN", tok.Site, moment(tok.Expires))
			_, err := fmt.Fprintln(w, tok.Token)
			return err
		})
	})
	return c
}

// offlineToken makes a token while no gateway runs. Where there is no CA key
// the error stays that of the gateway.
func (a *app) offlineToken(at place, site string, ttl time.Duration, unreachable error) (tok api.Token, err error) {
	id, err := pki.Load(at.pki())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !id.Founder() {
		return tok, unreachable
	}
	if err != nil {
		return tok, err
	}
	conf, err := config.Load(at.config())
	if err != nil {
		return tok, err
	}
	if site == conf.Site {
		return tok, fmt.Errorf("site %s is this one, and a site has one gateway: %w", site, gateway.ErrInvalid)
	}
	line, err := id.CreateToken(site, ttl, conf.Address...)
	if err != nil {
		return tok, err
	}
	parsed, err := pki.ParseToken(line)
	if err != nil {
		return tok, err
	}
	a.say("No gateway runs here yet; made the token with the CA's key in %s. Start longhauld before the other machine joins.", at.pki())
	return api.Token{Token: line, Site: site, Expires: parsed.Expires}, nil
}

const joinLong = `Joins a fleet with a token that "longhaul token create" printed on the machine
that founded it: asks that gateway for a certificate, stores the identity and
writes a commented config with the peer filled in.

The token is read from stdin if it is given as -, which keeps it out of the
shell's history and the list of processes.`

// joinTimeout bounds the whole enrolment, for a founder that does not answer.
const joinTimeout = time.Minute

func (a *app) joinCmd() *cobra.Command {
	var at place
	s := config.Starter{Gateway: "gw1"}
	c := &cobra.Command{
		Use:     "join TOKEN",
		Short:   "Join a fleet with a token",
		Long:    joinLong,
		Example: "  longhaul join lh1-AAECAwQFBgcICQ...\n  longhaul join - --address gw-b.example.net:7447 < token",
		GroupID: "setup",
		Args:    exactly("TOKEN"),
	}
	flags := c.Flags()
	flags.StringVar(&s.Address, "address", "", "`HOST:PORT` for other sites to reach this gateway; not needed if it dials them")
	flags.StringVar(&s.Gateway, "gateway", s.Gateway, "`name` of this gateway")
	at.flag(c)
	c.RunE = a.do(func(ctx context.Context, c *cobra.Command, args []string) error {
		if err := at.absolute(); err != nil {
			return err
		}
		req, err := a.joinRequest(at, s, args[0])
		if err != nil {
			return &usageError{err, c.CommandPath()}
		}
		if err := at.free(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, joinTimeout)
		defer cancel()
		a.say("Asking %s to let site %s in.", strings.Join(req.Token.Addrs, ", "), req.Token.Site)
		joined, err := a.enrol(ctx, req)
		if err != nil {
			return err
		}
		s.Site, s.Gateway, s.PKI = joined.Site, joined.Gateway, at.pki()
		for _, p := range joined.Peers {
			if len(p.Addrs) > 0 && p.Site != joined.Site {
				s.Peers = append(s.Peers, config.Peer{Site: p.Site, Address: p.Addrs})
			}
		}
		if err := at.write(s); err != nil {
			return err
		}
		return a.showFounded(at, s, "Joined; this is site "+s.Site+".")
	})
	return c
}

// maxLine bounds a token on stdin, in bytes; pki takes no longer ones.
const maxLine = 8 << 10

func (a *app) joinRequest(at place, s config.Starter, text string) (req pki.Request, err error) {
	if text == "-" {
		line, err := bufio.NewReader(io.LimitReader(a.stdin, maxLine)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return req, fmt.Errorf("reading the token: %w", err)
		}
		text = line
	}
	tok, err := pki.ParseToken(text)
	if err != nil {
		return req, err
	}
	req = pki.Request{Dir: at.pki(), Token: tok, Gateway: s.Gateway}
	if s.Address != "" {
		if err := flagError("address", config.CheckDial(s.Address)); err != nil {
			return req, err
		}
		req.Addrs = []string{s.Address}
	}
	return req, flagError("gateway", pki.CheckName(s.Gateway))
}

func (a *app) revokeCmd() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "revoke SITE --yes",
		Short: "Shut a site out of the fleet for good",
		Long: `Revokes the certificates of all gateways of a site. Its links go down at once at
every gateway that learns of it, and cannot come back: the site has to join anew
with a token. Moves that run are cut off and end with the VM at its source.`,
		Example: "  longhaul revoke b --yes",
		GroupID: "setup",
		Args:    exactly("SITE"),
		ValidArgsFunction: func(c *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
			return a.siteNames(c, args, s)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "really")
	c.RunE = a.do(func(ctx context.Context, c *cobra.Command, args []string) error {
		if !yes {
			return &usageError{fmt.Errorf("this shuts site %s out for good; add --yes if that is meant", args[0]), c.CommandPath()}
		}
		if err := a.gateway().Revoke(ctx, args[0]); err != nil {
			return err
		}
		a.noteStranger(ctx, args[0])
		return a.show(struct {
			Revoked string `json:"revoked"`
		}{args[0]}, func(io.Writer) error { a.say("revoked %s", args[0]); return nil })
	})
	return c
}

// noteStranger tells that a site that was revoked is none of the gateway's
// peers: a slip of the pen, or a site that has a token and has not joined yet.
func (a *app) noteStranger(ctx context.Context, site string) {
	st, err := a.gateway().Status(ctx)
	if err != nil || slices.ContainsFunc(st.Peers, func(p gateway.PeerStatus) bool { return p.Site == site }) {
		return
	}
	a.say("This gateway knows no site %s: what is void now are tokens for it, and certificates that it may have.", site)
}

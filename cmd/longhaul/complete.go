package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

// completeTimeout bounds what a press of the tab key may take.
const completeTimeout = 2 * time.Second

// completeFirst completes the first argument by names that the gateway knows.
// Without a gateway it completes nothing, silently.
func (a *app) completeFirst(list func(context.Context) ([]string, error)) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
		defer cancel()
		names, err := list(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// choices completes a flag that takes one of a few words.
func choices(c *cobra.Command, flag string, words ...string) {
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // fails for unknown flags only
}

func (a *app) vmNames(ctx context.Context) (names []string, err error) {
	vms, err := a.gateway().VMs(ctx)
	for _, v := range vms {
		names = append(names, v.Name)
	}
	return names, err
}

func (a *app) jobIDs(ctx context.Context) (names []string, err error) {
	jobs, err := a.gateway().Jobs(ctx)
	for _, j := range jobs {
		names = append(names, j.ID+"\t"+j.VM+" "+string(j.State))
	}
	return names, err
}

func (a *app) taskIDs(ctx context.Context) (names []string, err error) {
	tasks, err := a.gateway().StoreTasks(ctx)
	for _, t := range tasks {
		names = append(names, t.ID+"\t"+t.Kind+" "+string(t.State))
	}
	return names, err
}

func (a *app) forwardNames(ctx context.Context) (names []string, err error) {
	all, err := a.gateway().Forwards(ctx)
	for _, f := range all {
		names = append(names, f.Name)
	}
	return names, err
}

func (a *app) segmentNames(ctx context.Context) (names []string, err error) {
	all, err := a.gateway().Segments(ctx)
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names, err
}

// siteNames are the peers, for flags that take a site.
func (a *app) siteNames(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
	defer cancel()
	st, err := a.gateway().Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, p := range st.Peers {
		names = append(names, p.Site)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

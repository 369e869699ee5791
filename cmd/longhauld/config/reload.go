package config

import "reflect"

// Reload compares the running config with one that was read anew. It returns
// the config to go on with, which has the new values of the keys that can
// change while the gateway runs, and the names of the other keys that differ:
// they wait for a restart.
func (c Config) Reload(next Config) (now Config, restart []string) {
	now = c
	now.Link.Rate, now.Link.Calendar, now.Link.Weights = next.Link.Rate, next.Link.Calendar, next.Link.Weights
	now.Peers, now.Log.Level = next.Peers, next.Log.Level
	restart = differing("", reflect.ValueOf(now), reflect.ValueOf(next))
	return now, restart
}

// differing names the keys as the file has them: whole lists, and the fields
// of sections.
func differing(section string, a, b reflect.Value) (keys []string) {
	for i := range a.NumField() {
		key := section + a.Type().Field(i).Tag.Get("yaml")
		switch {
		case a.Field(i).Kind() == reflect.Struct:
			keys = append(keys, differing(key+".", a.Field(i), b.Field(i))...)
		case !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()):
			keys = append(keys, key)
		}
	}
	return keys
}

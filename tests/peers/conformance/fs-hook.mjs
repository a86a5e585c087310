// Loads the conformance suite on Node 20: it imports `globSync` from `fs`, which Node has from 22 on and
// which no scenario run here calls. Use with `node --import`; does nothing on newer versions.
import fs from 'node:fs';
import { register } from 'node:module';

if (!('globSync' in fs)) register('./fs-hook-resolve.mjs', import.meta.url);

export * from 'node:fs';
export { default } from 'node:fs';

export function globSync() {
    throw new Error('this command of the conformance suite needs Node 22');
}

import { UsageError } from "./errors.ts";

/** An option given as undefined means its default. */
export const withoutUndefined = <T extends object>(options: T): T =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;

/** `imageSize` -> `image-size`, as a flag is written. */
export const kebabCase = (key: string): string => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** `image-size` -> `imageSize` */
export const camelCase = (name: string): string =>
  name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** Throws where one of some numbers is not as it must be: `checkNumbers({ momentum }, isRate, "from 0 to below 1")`. */
export function checkNumbers(
  numbers: Readonly<Record<string, number>>,
  holds: (value: number) => boolean,
  wanted: string,
): void {
  for (const [name, value] of Object.entries(numbers))
    if (!holds(value)) throw new UsageError(`${name} is ${value}; it must be ${wanted}`);
}

export const isShare = (value: number): boolean => value >= 0 && value <= 1;
export const isRate = (value: number): boolean => value >= 0 && value < 1;
export const isAmount = (value: number): boolean => value >= 0 && Number.isFinite(value);
